//! The API server, nodes, Istio.

use super::*;

#[test]
fn an_api_server_that_is_too_old_fails() {
    assert_found(
        Check::ApiServer,
        Failure,
        "1.29 is older than 1.30",
        |facts| {
            facts.kubernetes = (1, 29);
        },
    );
    assert_found(Check::ApiServer, Good, "1.30", |facts| {
        facts.kubernetes = (1, 30);
    });
    assert_found(Check::ApiServer, Good, "2.0", |facts| {
        facts.kubernetes = (2, 0);
    });
}

#[test]
fn a_right_that_is_missing_is_named() {
    let deny = |facts: &mut Facts| facts.rights[0].allowed = Ok(false);
    assert_found(Check::Rights, Warning, "you may not: list nodes", deny);
    assert_found(Check::Rights, Failure, "you may not: list nodes", |facts| {
        deny(facts);
        facts.stage = Stage::Before;
    });
}

#[test]
fn nodes_that_cannot_run_sidestep_are_named_with_the_reason() {
    let unfit = |facts: &mut Facts, some: usize| {
        for node in &mut facts.nodes.as_mut().expect("known")[..some] {
            node.unfit = Some("kernel-too-old".to_owned());
            node.kernel = "5.15.0".to_owned();
        }
    };
    let one = "1 of 2 cannot run Sidestep: one (kernel-too-old, Linux 5.15.0)";
    assert_found(Check::Nodes, Warning, one, |facts| unfit(facts, 1));
    assert_found(Check::Nodes, Failure, "none can", |facts| unfit(facts, 2));
    assert_found(Check::Nodes, Failure, "no nodes", |facts| {
        facts.nodes = Ok(vec![]);
    });
    assert_not_made(Check::NodeLabels, |facts| unfit(facts, 2));
}

#[test]
fn many_nodes_are_listed_in_short() {
    let mut facts = healthy();
    let nodes = (0..20).map(|n| SeenNode {
        without_agent: Some("missing".to_owned()),
        ..node(&format!("n{n}"))
    });
    facts.nodes = Ok(nodes.collect());
    let found = of(Check::NodeLabels, &facts).expect("it is made");
    assert!(
        found.verdict.said.ends_with("n7 (missing) and 12 more"),
        "{found:?}"
    );
}

#[test]
fn nodes_that_gated_pods_keep_off_are_named() {
    let label = |facts: &mut Facts, some: usize| {
        for node in &mut facts.nodes.as_mut().expect("known")[..some] {
            node.without_agent = Some("cannot-run".to_owned());
        }
    };
    let one = "1 labelled: one (cannot-run)";
    assert_found(Check::NodeLabels, Warning, one, |facts| label(facts, 1));
    assert_found(Check::NodeLabels, Failure, "every node", |facts| {
        label(facts, 2);
    });
}

#[test]
fn istio_must_be_there_and_new_enough() {
    let version = |version: Option<&str>| {
        let version = version.map(ToOwned::to_owned);
        move |facts: &mut Facts| facts.istiods.as_mut().expect("known")[0].version = version
    };
    assert_found(Check::Istiod, Failure, "no istiod", |facts| {
        facts.istiods = Ok(vec![]);
    });
    for old in ["1.23.4", "1.9.0-distroless", "v1.2"] {
        assert_found(
            Check::Istiod,
            Failure,
            "older than 1.24",
            version(Some(old)),
        );
    }
    for good in ["1.24.0", "1.31.0-distroless", "v1.30", "2.0.0"] {
        assert_found(Check::Istiod, Good, good, version(Some(good)));
    }
    for unread in [None, Some("latest"), Some("")] {
        assert_found(
            Check::Istiod,
            Warning,
            "istio-system/istiod",
            version(unread),
        );
    }
    assert_found(Check::Istiod, Warning, "not available", |facts| {
        facts.istiods.as_mut().expect("known")[0].available = 0;
    });
    // One old revision among others counts.
    assert_found(Check::Istiod, Failure, "(revision canary)", |facts| {
        let all = facts.istiods.as_mut().expect("known");
        let canary = Istiod {
            revision: "canary".to_owned(),
            version: Some("1.20.1".to_owned()),
            ..all[0].clone()
        };
        all.push(canary);
    });
}

#[test]
fn somebody_must_inject() {
    assert_found(Check::Injectors, Failure, "no Mutating", |facts| {
        facts.registrations.as_mut().expect("known").remove(0);
    });
    assert_found(Check::Injectors, Good, "istio-revision-tag-prod", |facts| {
        let tag = injector("istio-revision-tag-prod");
        facts.registrations.as_mut().expect("known").push(tag);
    });
    assert_found(Check::Redirector, Good, "istio-cni", |facts| {
        facts.istio_cni = Ok(true);
    });
}

#[test]
fn an_injector_that_is_asked_after_the_webhook_fails() {
    let late = |facts: &mut Facts| {
        let late = injector("zz-injector");
        facts.registrations.as_mut().expect("known").push(late);
    };
    let said = "asked after sidestep-webhook: zz-injector";
    assert_found(Check::WebhookOrder, Failure, said, late);
    assert_found(Check::WebhookOrder, Failure, said, |facts| {
        facts.stage = Stage::Before;
        facts.registrations = Ok(vec![injector("zz-injector")]);
    });
    // Others may come after: the webhook is asked again.
    assert_found(Check::WebhookOrder, Good, "every injector", |facts| {
        let other = registration("zz-other");
        facts.registrations.as_mut().expect("known").push(other);
    });
}
