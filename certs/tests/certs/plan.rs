//! What is done next, for everything that a Secret may hold.

use std::time::Duration;

use crate::common::{
    DAY, NAMES, begun, holding, lifetimes, nearly_overlapped, start, stepped, wants,
};
use sidestep_certs::authority::Authority;
use sidestep_certs::holding::Holding;
use sidestep_certs::plan::{Step, Trusted, plan, take};

const NOT_YET: Trusted = Trusted::For(Duration::ZERO);
const LONG: Trusted = Trusted::For(Duration::from_hours(1));

#[test]
fn nothing_is_held_so_a_ca_is_made_and_trusted_before_it_signs() {
    let names = NAMES.map(str::to_owned);
    let wants = wants(&names);
    let now = start();
    let held = Holding::default();
    assert_eq!(plan(&held, NOT_YET, now, &wants), Step::AddNext);
    let held = stepped(Step::AddNext, &held, now);
    assert!(held.leaf.is_none());
    let more = lifetimes().settle();
    assert_eq!(plan(&held, NOT_YET, now, &wants), Step::Wait { more });
    assert_eq!(
        plan(&held, Trusted::For(more), now, &wants),
        Step::Promote,
        "nobody serves anything, so a moment is enough"
    );
}

#[test]
fn where_no_configuration_asks_for_the_server_nobody_must_be_convinced() {
    let held = stepped(Step::AddNext, &Holding::default(), start());
    let names = NAMES.map(str::to_owned);
    let step = plan(&held, Trusted::NobodyAsks, start(), &wants(&names));
    assert_eq!(step, Step::Promote);
}

#[test]
fn a_leaf_is_renewed_at_two_thirds_of_its_life_and_not_before() {
    let held = begun(start());
    let names = NAMES.map(str::to_owned);
    let Step::Keep { until } = plan(&held, NOT_YET, start(), &wants(&names)) else {
        panic!("all is well at the start");
    };
    let after = until.duration_since(start()).expect("in the future");
    assert!(
        (after.as_secs_f64() / (60.0 * DAY.as_secs_f64()) - 1.0).abs() < 0.01,
        "{after:?} of 90 days"
    );
    let before = until - Duration::from_secs(1);
    assert!(matches!(
        plan(&held, NOT_YET, before, &wants(&names)),
        Step::Keep { .. }
    ));
    assert_eq!(plan(&held, NOT_YET, until, &wants(&names)), Step::Renew);
    let renewed = stepped(Step::Renew, &held, until);
    assert_eq!(
        renewed.current, held.current,
        "by the same CA, which everybody trusts"
    );
    assert!(matches!(
        plan(&renewed, NOT_YET, until, &wants(&names)),
        Step::Keep { .. }
    ));
}

#[test]
fn a_ca_is_followed_by_another_which_is_trusted_for_a_while_before_it_signs() {
    let names = NAMES.map(str::to_owned);
    let now = start() + DAY * 601;
    let held = stepped(Step::Renew, &begun(start()), now);
    assert_eq!(plan(&held, LONG, now, &wants(&names)), Step::AddNext);
    let held = stepped(Step::AddNext, &held, now);
    let overlap = lifetimes().overlap();
    assert_eq!(
        plan(
            &held,
            Trusted::For(nearly_overlapped()),
            now,
            &wants(&names)
        ),
        Step::Wait {
            more: Duration::from_secs(1)
        }
    );
    assert_eq!(
        plan(&held, Trusted::For(overlap), now, &wants(&names)),
        Step::Promote
    );
    let promoted = stepped(Step::Promote, &held, now);
    let old = held.current.expect("a CA").cert;
    assert_eq!(
        promoted.previous,
        std::slice::from_ref(&old),
        "it stays trusted"
    );
    assert!(promoted.next.is_none());
    let leaf = promoted.leaf.as_ref().expect("a leaf");
    assert!(
        leaf.cert
            .is_signed_by(&promoted.current.as_ref().expect("a CA").cert)
    );
    // Until it has expired.
    let Step::Keep { until } = plan(&promoted, NOT_YET, now, &wants(&names)) else {
        panic!("all is well");
    };
    assert!(until <= old.not_after);
    let end = old.not_after + Duration::from_secs(1);
    assert_eq!(plan(&promoted, NOT_YET, end, &wants(&names)), Step::Forget);
    assert!(stepped(Step::Forget, &promoted, end).previous.is_empty());
}

#[test]
fn a_leaf_that_comes_due_while_its_next_ca_waits_is_renewed_by_the_old_one() {
    let names = NAMES.map(str::to_owned);
    let now = start() + DAY * 80;
    let held = stepped(Step::AddNext, &begun(start()), now);
    assert_eq!(plan(&held, NOT_YET, now, &wants(&names)), Step::Renew);
}

#[test]
fn a_leaf_never_outlives_its_ca() {
    let now = start() + DAY * 880;
    let held = stepped(Step::Renew, &begun(start()), now);
    let (leaf, ca) = (held.leaf.expect("a leaf"), held.current.expect("a CA"));
    assert_eq!(leaf.cert.not_after, ca.cert.not_after);
}

#[test]
fn another_name_asks_for_another_leaf() {
    let names = ["elsewhere.ns.svc".to_owned()];
    let step = plan(&begun(start()), NOT_YET, start(), &wants(&names));
    assert_eq!(step, Step::Renew);
}

#[test]
fn a_ca_without_its_key_is_followed_by_another_while_the_leaf_goes_on() {
    let names = NAMES.map(str::to_owned);
    let mut held = begun(start());
    let ca = held.current.take().expect("a CA");
    held.previous.push(ca.cert);
    assert_eq!(plan(&held, NOT_YET, start(), &wants(&names)), Step::AddNext);
    let held = stepped(Step::AddNext, &held, start());
    let more = lifetimes().overlap();
    assert_eq!(
        plan(&held, NOT_YET, start(), &wants(&names)),
        Step::Wait { more },
        "what is served is good, so there is no hurry"
    );
}

#[test]
fn everything_expired_is_replaced() {
    let names = NAMES.map(str::to_owned);
    let now = start() + DAY * 2000;
    let held = begun(start());
    assert_eq!(plan(&held, LONG, now, &wants(&names)), Step::AddNext);
    let held = stepped(Step::AddNext, &held, now);
    let more = lifetimes().settle();
    assert_eq!(
        plan(&held, NOT_YET, now, &wants(&names)),
        Step::Wait { more }
    );
    let held = stepped(Step::Promote, &held, now);
    assert!(held.previous.is_empty(), "the old one is of no use");
    assert!(matches!(
        plan(&held, NOT_YET, now, &wants(&names)),
        Step::Keep { .. }
    ));
}

#[test]
fn a_clock_that_was_far_ahead_or_behind_is_recovered_from() {
    let names = NAMES.map(str::to_owned);
    for jump in [DAY * 4000, DAY * 100] {
        // Made by a clock that was ahead: not valid yet.
        let held = begun(start() + jump);
        let step = plan(&held, LONG, start(), &wants(&names));
        assert_eq!(step, Step::AddNext, "ahead by {jump:?}");
        // Made by a clock that was behind: expired, or due before its time.
        let held = begun(start() - jump);
        let step = plan(&held, NOT_YET, start(), &wants(&names));
        assert!(
            matches!(step, Step::AddNext | Step::Renew),
            "behind by {jump:?}: {step:?}"
        );
    }
    // Half an hour is nothing.
    let held = begun(start() + Duration::from_mins(30));
    let step = plan(&held, NOT_YET, start(), &wants(&names));
    assert!(matches!(step, Step::Keep { .. }), "{step:?}");
}

#[test]
fn a_lifetime_that_was_set_shorter_takes_effect() {
    let names = NAMES.map(str::to_owned);
    let mut wants = wants(&names);
    wants.lifetimes = sidestep_certs::Lifetimes::new(Duration::from_hours(1));
    let held = begun(start());
    assert_eq!(plan(&held, NOT_YET, start(), &wants), Step::AddNext);
    let held = take(Step::AddNext, &held, start(), &wants).expect("a CA");
    let held = take(Step::Promote, &held, start(), &wants).expect("a leaf");
    let step = plan(&held, NOT_YET, start(), &wants);
    assert!(matches!(step, Step::Keep { .. }), "{step:?}");
}

#[test]
fn a_leaf_of_no_known_ca_is_replaced() {
    let names = NAMES.map(str::to_owned);
    let stranger = Authority::make(start(), lifetimes()).expect("a CA");
    let mut held = begun(start());
    held.leaf = Some(stranger.sign(&names, start(), lifetimes()).expect("a leaf"));
    assert_eq!(plan(&held, NOT_YET, start(), &wants(&names)), Step::Renew);
}

#[test]
fn what_is_written_is_read_again() {
    let held = stepped(Step::AddNext, &begun(start()), start());
    assert_eq!(holding(&held.write()), held);
    let later = stepped(Step::Promote, &held, start());
    assert_eq!(holding(&later.write()), later);
}
