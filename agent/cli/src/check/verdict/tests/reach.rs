//! Whether the webhook is reached, and what would become of a pod.

use super::*;

/// The webhook does not answer, after this time; and what the API server meets on the way to it.
fn silent(took: u64, way: Option<Result<(), &str>>) -> impl FnOnce(&mut Facts) {
    let way = way.map(|way| way.map_err(ToOwned::to_owned));
    move |facts| {
        facts.probe.answered = Ok(false);
        facts.probe.took = Duration::from_millis(took);
        facts.probe.way = way;
    }
}

#[test]
fn a_webhook_that_does_not_answer_fails_with_the_cause() {
    let refused = Some(Err("dial tcp 10.0.0.5:8443: i/o timeout"));
    assert_found(
        Check::WebhookAnswers,
        Failure,
        "waited for 3 s; dial tcp",
        silent(3010, refused),
    );
    let refused = Some(Err("dial tcp 10.0.0.5:8443: connection refused"));
    assert_found(
        Check::WebhookAnswers,
        Failure,
        "connection refused",
        silent(5, refused),
    );
    assert_found(
        Check::WebhookAnswers,
        Failure,
        "though replicas are ready",
        silent(3010, None),
    );
    assert_found(
        Check::WebhookAnswers,
        Failure,
        "reaches the webhook",
        silent(3010, Some(Ok(()))),
    );
    assert_found(
        Check::WebhookAnswers,
        Failure,
        "refused at once",
        silent(5, Some(Ok(()))),
    );
    assert_found(
        Check::WebhookAnswers,
        Failure,
        "deadline exceeded",
        |facts| {
            let why = "failed calling webhook \"pods.sidestep.dev\": context deadline exceeded";
            facts.probe.answered = Err(why.to_owned());
        },
    );
    assert_found(Check::WebhookAnswers, Failure, "no replica", |facts| {
        silent(5, None)(facts);
        facts
            .webhook
            .as_mut()
            .expect("known")
            .as_mut()
            .expect("there")
            .ready = 0;
    });
    assert_found(Check::WebhookAnswers, Failure, "does not trust", |facts| {
        silent(5, Some(Ok(())))(facts);
        ours(facts).trusted = Ok(vec![certificates(DAY, 90 * DAY).0]);
    });
}

#[test]
fn a_firewall_is_named_where_the_way_is_shut() {
    let mut facts = healthy();
    silent(3010, Some(Err("dial tcp 10.0.0.5:8443: i/o timeout")))(&mut facts);
    let found = of(Check::WebhookAnswers, &facts).expect("it is made");
    let hint = found.verdict.hint.expect("a hint");
    assert!(hint.contains("8443") && hint.contains("firewall"), "{hint}");
}

#[test]
fn where_no_pod_can_be_tried_nothing_is_known() {
    assert_found(Check::WebhookAnswers, Warning, "never sees", |facts| {
        facts.probe.namespace = "kube-system".to_owned();
    });
    assert_found(Check::WebhookAnswers, Warning, "exceeded quota", |facts| {
        facts.probe.answered = Err("exceeded quota".to_owned());
    });
    assert_found(Check::WouldAccelerate, Warning, "no namespace", |facts| {
        facts.trial = None;
    });
}

#[test]
fn what_would_become_of_a_new_pod_is_told() {
    let became = |became: Result<Option<Seen>, String>| {
        move |facts: &mut Facts| facts.trial.as_mut().expect("one").became = became
    };
    let left = Seen::Left {
        word: "no-agent".to_owned(),
        sentence: "no node agent is ready".to_owned(),
    };
    assert_found(
        Check::WouldAccelerate,
        Warning,
        "left: no-agent",
        became(Ok(Some(left))),
    );
    assert_found(
        Check::WouldAccelerate,
        Failure,
        "not be asked",
        became(Ok(Some(Seen::NotAsked))),
    );
    assert_found(
        Check::WouldAccelerate,
        Warning,
        "would not inject",
        became(Ok(None)),
    );
    assert_found(
        Check::WouldAccelerate,
        Warning,
        "denied",
        became(Err("denied".to_owned())),
    );
}
