//! Sidestep's own objects.

use super::*;

fn remove_ours(facts: &mut Facts) {
    let all = facts.registrations.as_mut().expect("known");
    all.retain(|one| one.ours.is_none());
}

#[test]
fn the_namespace_must_be_there_and_take_the_agents() {
    assert_found(Check::Namespace, Failure, "is not there", |facts| {
        facts.namespace = Ok(None);
    });
    for standard in ["baseline", "restricted"] {
        assert_found(Check::Namespace, Failure, standard, |facts| {
            facts.namespace = Ok(Some(NamespaceFact {
                enforces: Some(standard.to_owned()),
            }));
        });
    }
    assert_found(Check::Namespace, Good, "sidestep-system", |facts| {
        facts.namespace = Ok(Some(NamespaceFact { enforces: None }));
    });
}

#[test]
fn without_a_registration_that_is_said_once() {
    assert_found(
        Check::Registration,
        Failure,
        "pods.sidestep.dev",
        remove_ours,
    );
    for check in [
        Check::WebhookOrder,
        Check::CaBundle,
        Check::ServingCertificate,
        Check::WebhookAnswers,
        Check::WouldAccelerate,
        Check::MissedPods,
    ] {
        assert_not_made(check, remove_ours);
    }
}

#[test]
fn a_registration_that_differs_from_the_charts_is_a_warning() {
    assert_found(Check::Registration, Warning, "failurePolicy", |facts| {
        ours(facts).ignores_failures = false;
    });
    assert_found(
        Check::Registration,
        Warning,
        "reinvocationPolicy",
        |facts| {
            ours(facts).reinvoked = false;
        },
    );
    assert_found(
        Check::Registration,
        Warning,
        "sidestep-old, sidestep-webhook",
        |facts| {
            let second = Registration {
                ours: Some(ours(facts).clone()),
                ..registration("sidestep-old")
            };
            facts
                .registrations
                .as_mut()
                .expect("known")
                .insert(0, second);
        },
    );
}

#[test]
fn replicas_that_are_missing_are_counted() {
    let ready = |ready| {
        move |facts: &mut Facts| {
            for workload in [&mut facts.webhook, &mut facts.daemonset] {
                let workload = workload.as_mut().expect("known").as_mut();
                workload.expect("it is there").ready = ready;
            }
        }
    };
    assert_found(Check::Webhook, Failure, "none of 2", ready(0));
    assert_found(Check::Webhook, Warning, "1 of 2", ready(1));
    assert_found(Check::Webhook, Failure, "scaled to no replica", |facts| {
        let webhook = facts.webhook.as_mut().expect("known").as_mut();
        let webhook = webhook.expect("it is there");
        (webhook.desired, webhook.ready) = (0, 0);
    });
    assert_found(Check::Webhook, Failure, "no Deployment", |facts| {
        facts.webhook = Ok(None);
    });
    assert_found(Check::Agents, Failure, "none of 2", ready(0));
    assert_found(Check::Agents, Warning, "1 of 2", ready(1));
    assert_found(Check::Agents, Failure, "no DaemonSet", |facts| {
        facts.daemonset = Ok(None);
    });
}

#[test]
fn a_node_that_has_no_agent_is_named_unless_it_cannot_run_one() {
    let third = |unfit: Option<&str>| {
        let unfit = unfit.map(ToOwned::to_owned);
        move |facts: &mut Facts| {
            let third = SeenNode {
                unfit,
                ..node("three")
            };
            facts.nodes.as_mut().expect("known").push(third);
        }
    };
    assert_found(Check::Agents, Warning, "without one: three", third(None));
    assert_found(Check::Agents, Good, "2 of 2", third(Some("not-linux")));
    assert_found(Check::Agents, Failure, "no node should", |facts| {
        let set = facts.daemonset.as_mut().expect("known").as_mut();
        *set.expect("it is there") = Workload {
            desired: 0,
            ready: 0,
            image: String::new(),
        };
    });
}

#[test]
fn parts_of_different_versions_are_a_warning() {
    assert_found(
        Check::Versions,
        Warning,
        "images differ: webhook 9.9",
        |facts| {
            let webhook = facts.webhook.as_mut().expect("known").as_mut();
            webhook.expect("it is there").image = "r/webhook:9.9".to_owned();
        },
    );
    assert_found(Check::Versions, Warning, "images differ", |facts| {
        facts.agents.as_mut().expect("known")[0].0.image = "r/agent:9.9".to_owned();
    });
    assert_found(
        Check::Versions,
        Warning,
        "agents are of version 9.9",
        |facts| {
            for (_, answer) in facts.agents.as_mut().expect("known") {
                *answer = Ok(status(&json!({"version": "9.9"})));
            }
        },
    );
    // A digest says nothing that could differ.
    assert_found(Check::Versions, Good, VERSION, |facts| {
        let webhook = facts.webhook.as_mut().expect("known").as_mut();
        webhook.expect("it is there").image = "registry:5000/webhook@sha256:00".to_owned();
    });
}

#[test]
fn a_policy_that_is_not_bound_fails() {
    assert_found(
        Check::AdmissionPolicies,
        Failure,
        "sidestep-label-binding",
        |facts| {
            facts
                .policies
                .as_mut()
                .expect("known")
                .remove("sidestep-label-binding");
        },
    );
}

#[test]
fn one_replica_must_lead() {
    let lease = |holder: &str, renewed: Duration| {
        let lease = LeaseFact {
            holder: holder.to_owned(),
            renewed: Some(ago(renewed)),
        };
        move |facts: &mut Facts| facts.lease = Ok(Some(lease))
    };
    assert_found(Check::Leader, Warning, "no Lease", |facts| {
        facts.lease = Ok(None);
    });
    assert_found(Check::Leader, Warning, "nobody", lease("", Duration::ZERO));
    assert_found(
        Check::Leader,
        Warning,
        "for 300 s",
        lease("a", Duration::from_mins(5)),
    );
    // A clock that is ahead of ours is no reason.
    assert_found(Check::Leader, Good, "a", |facts| {
        facts.lease = Ok(Some(LeaseFact {
            holder: "a".to_owned(),
            renewed: Some(now() + HOUR),
        }));
    });
}
