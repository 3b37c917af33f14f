//! Whom the API server trusts, and with what the webhook serves.

use super::*;

#[test]
fn a_ca_bundle_must_hold_a_certificate_that_is_good_for_a_while() {
    let trust = |made, life| {
        move |facts: &mut Facts| ours(facts).trusted = Ok(vec![certificates(made, life).0])
    };
    assert_found(Check::CaBundle, Failure, "missing", |facts| {
        ours(facts).trusted = Ok(vec![]);
    });
    assert_found(
        Check::CaBundle,
        Failure,
        "no certificate: nonsense",
        |facts| {
            ours(facts).trusted = Err("nonsense".to_owned());
        },
    );
    // A CA lives ten times as long as its leaves.
    assert_found(
        Check::CaBundle,
        Failure,
        "expired on",
        trust(400 * DAY, 30 * DAY),
    );
    assert_found(
        Check::CaBundle,
        Warning,
        "expires on",
        trust(295 * DAY, 30 * DAY),
    );
    assert_found(
        Check::CaBundle,
        Good,
        "good until",
        trust(100 * DAY, 30 * DAY),
    );
    // The latest counts: the others are kept for leaves that they signed.
    assert_found(Check::CaBundle, Good, "good until", |facts| {
        let old = certificates(400 * DAY, 30 * DAY).0;
        ours(facts).trusted.as_mut().expect("known").insert(0, old);
    });
}

#[test]
fn a_serving_certificate_must_be_good_and_of_the_ca_that_is_trusted() {
    let serve = |made, life| {
        move |facts: &mut Facts| {
            let (authority, leaf) = certificates(made, life);
            ours(facts).trusted = Ok(vec![authority]);
            facts.certificates = Ok(vec![leaf]);
        }
    };
    assert_found(
        Check::ServingCertificate,
        Failure,
        "expired on",
        serve(91 * DAY, 90 * DAY),
    );
    assert_found(
        Check::ServingCertificate,
        Warning,
        "expires on",
        serve(80 * DAY, 90 * DAY),
    );
    assert_found(
        Check::ServingCertificate,
        Good,
        "good until",
        serve(60 * DAY, 90 * DAY),
    );
    // One that lives for an hour is not always near its end.
    assert_found(
        Check::ServingCertificate,
        Good,
        "good until",
        serve(HOUR / 2, HOUR),
    );
    assert_found(
        Check::ServingCertificate,
        Failure,
        "Secret is not there",
        |facts| {
            facts.certificates = Ok(vec![]);
        },
    );
    let another = |facts: &mut Facts| {
        ours(facts).trusted = Ok(vec![certificates(DAY, 90 * DAY).0]);
    };
    assert_found(
        Check::ServingCertificate,
        Failure,
        "no certificate in caBundle",
        another,
    );
    // Behind the leaf comes the CA that signed it, and only that is trusted.
    assert_found(Check::ServingCertificate, Good, "good until", |facts| {
        let root = certificates(DAY, 90 * DAY).0;
        ours(facts).trusted = Ok(vec![root.clone()]);
        facts.certificates.as_mut().expect("known").push(root);
    });
    // While CAs change, several are trusted.
    assert_found(Check::ServingCertificate, Good, "good until", |facts| {
        let next = certificates(DAY, 90 * DAY).0;
        ours(facts).trusted.as_mut().expect("known").push(next);
    });
}
