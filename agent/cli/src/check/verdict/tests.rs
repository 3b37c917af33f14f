//! Each verdict of each check, on clusters that are values: one that is well, with one thing changed.

use std::time::{Duration, SystemTime};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use sidestep_agent_api::{ShortcutStatus, Status};
use sidestep_certs::Lifetimes;
use sidestep_certs::authority::Authority;
use sidestep_certs::cert::Cert;
use sidestep_contract::waiting::Place;

use crate::check::facts::{
    EventFact, Facts, Istiod, LeaseFact, NamespaceFact, OurWebhook, Probe, Registration, Right,
    Trial, Workload,
};
use crate::check::finding::Level::{Failure, Good, Warning};
use crate::check::finding::{Check, Finding, Level, Stage, findings};
use crate::cluster::{AgentPod, Seen, SeenNode, SeenPod};

mod installed;
mod mesh;
mod reach;
mod running;
mod serving;
mod unknown;

/// What this program, the agents and the images are, where nothing else is said.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The names of the certificate's server.
const SERVER: &str = "sidestep-webhook.sidestep-system.svc";

/// Now, on all of these clusters.
fn now() -> Timestamp {
    "2026-11-30T12:00:00Z".parse().expect("a time")
}

fn ago(time: Duration) -> Timestamp {
    now() - time
}

const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// A CA, and a leaf of it, as the webhook makes them, this long ago; the leaf lives so long.
fn certificates(made: Duration, life: Duration) -> (Cert, Cert) {
    let made = SystemTime::from(ago(made));
    let lifetimes = Lifetimes::new(life);
    let authority = Authority::make(made, lifetimes).expect("a CA");
    let leaf = authority.sign(&[SERVER.to_owned()], made, lifetimes);
    (authority.cert, leaf.expect("a leaf").cert)
}

/// A ready agent's status with these fields besides.
fn status(fields: &Value) -> Status {
    let shortcut = ShortcutStatus {
        on: true,
        ..ShortcutStatus::default()
    };
    let mut status = json!({
        "ready": true, "version": VERSION, "pid": 7, "cgroup": "", "pods": [], "errors": [], "repairs": [],
        "shortcut": shortcut,
    });
    for (name, value) in fields.as_object().expect("an object") {
        status[name] = value.clone();
    }
    serde_json::from_value(status).expect("a status")
}

fn node(name: &str) -> SeenNode {
    SeenNode {
        name: name.to_owned(),
        kernel: "6.12.1".to_owned(),
        unfit: None,
        without_agent: None,
        cordoned: false,
    }
}

fn agent(node: &str) -> AgentPod {
    AgentPod {
        name: format!("sidestep-agent-{node}"),
        node: node.to_owned(),
        image: format!("registry:5000/sidestep/agent:{VERSION}"),
        down: None,
    }
}

fn pod(name: &str, seen: Seen, age: Duration) -> SeenPod {
    SeenPod {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        node: Some("one".to_owned()),
        made: Some(Time(ago(age))),
        reach: None,
        seen,
    }
}

fn registration(name: &str) -> Registration {
    Registration {
        name: name.to_owned(),
        made: Some(ago(DAY)),
        injects: None,
        ours: None,
    }
}

fn injector(name: &str) -> Registration {
    Registration {
        injects: Some("default".to_owned()),
        ..registration(name)
    }
}

/// A cluster of two nodes on which all is well.
fn healthy() -> Facts {
    let (authority, leaf) = certificates(DAY, 90 * DAY);
    let workload = |part: &str| Workload {
        desired: 2,
        ready: 2,
        image: format!("registry:5000/sidestep/{part}:{VERSION}"),
    };
    let ours = OurWebhook {
        reinvoked: true,
        ignores_failures: true,
        timeout: Duration::from_secs(3),
        trusted: Ok(vec![authority]),
        excluded: ["kube-system".to_owned()].into(),
    };
    let policies = [
        "sidestep-label",
        "sidestep-label-at-creation",
        "sidestep-label-binding",
    ];
    Facts {
        stage: Stage::After,
        now: now(),
        home: "sidestep-system".to_owned(),
        kubernetes: (1, 34),
        rights: vec![Right {
            what: "list nodes".to_owned(),
            allowed: Ok(true),
        }],
        nodes: Ok(vec![node("one"), node("two")]),
        istiods: Ok(vec![Istiod {
            place: "istio-system/istiod".to_owned(),
            revision: "default".to_owned(),
            version: Some("1.31.0".to_owned()),
            available: 1,
        }]),
        istio_cni: Ok(false),
        registrations: Ok(vec![
            injector("istio-sidecar-injector"),
            Registration {
                ours: Some(ours),
                ..registration("sidestep-webhook")
            },
        ]),
        namespace: Ok(Some(NamespaceFact {
            enforces: Some("privileged".to_owned()),
        })),
        webhook: Ok(Some(workload("webhook"))),
        daemonset: Ok(Some(workload("agent"))),
        certificates: Ok(vec![leaf]),
        policies: Ok(policies.map(ToOwned::to_owned).into()),
        lease: Ok(Some(LeaseFact {
            holder: "sidestep-webhook-a".to_owned(),
            renewed: Some(ago(Duration::from_secs(2))),
        })),
        probe: Probe {
            namespace: "default".to_owned(),
            answered: Ok(true),
            took: Duration::from_millis(12),
            way: None,
        },
        trial: Some(Trial {
            namespace: "shop".to_owned(),
            became: Ok(Some(Seen::Begins)),
        }),
        agents: Ok(["one", "two"]
            .map(|node| (agent(node), Ok(status(&json!({})))))
            .into()),
        pods: Ok(vec![pod("web", Seen::Passed, HOUR)]),
        events: Ok(Vec::new()),
    }
}

/// Our webhook's registration.
fn ours(facts: &mut Facts) -> &mut OurWebhook {
    let all = facts.registrations.as_mut().expect("they are known");
    let mut ours = all.iter_mut().filter_map(|one| one.ours.as_mut());
    ours.next().expect("ours is there")
}

fn of(check: Check, facts: &Facts) -> Option<Finding> {
    let mut all = findings(facts).into_iter();
    all.find(|finding| finding.check == check)
}

/// What a check finds on a healthy cluster with this change: its level, and words of what it says. Nothing is found there without
/// the change.
#[track_caller]
fn assert_found(check: Check, level: Level, words: &str, change: impl FnOnce(&mut Facts)) {
    let mut facts = healthy();
    let before = of(check, &facts).expect("it is made");
    assert_eq!(before.verdict.level, Good, "{before:?}");
    change(&mut facts);
    let found = of(check, &facts).unwrap_or_else(|| panic!("{check:?} is not made"));
    assert_eq!(found.verdict.level, level, "{found:?}");
    assert!(found.verdict.said.contains(words), "{found:?}");
    assert_eq!(found.verdict.hint.is_some(), level != Good, "{found:?}");
}

/// A check is left out where another says already what is wrong.
#[track_caller]
fn assert_not_made(check: Check, change: impl FnOnce(&mut Facts)) {
    let mut facts = healthy();
    change(&mut facts);
    assert!(of(check, &facts).is_none(), "{:?}", of(check, &facts));
}

#[test]
fn on_a_healthy_cluster_every_check_is_made_and_good() {
    let found = findings(&healthy());
    let bad: Vec<_> = found
        .iter()
        .filter(|one| one.verdict.level != Good)
        .collect();
    assert!(bad.is_empty(), "{bad:?}");
    let all = Check::ALL
        .iter()
        .filter(|check| **check != Check::NotInstalled);
    assert!(all.eq(found.iter().map(|one| &one.check)), "{found:?}");
}

#[test]
fn before_installing_only_what_is_there_by_then_is_checked() {
    let mut facts = healthy();
    facts.stage = Stage::Before;
    facts.registrations = Ok(vec![injector("istio-sidecar-injector")]);
    facts.namespace = Ok(None);
    let found = findings(&facts);
    let names: Vec<_> = found.iter().map(|one| one.check.name()).collect();
    let wanted = [
        "api-server",
        "rights",
        "not-installed",
        "nodes",
        "istiod",
        "injectors",
        "redirector",
        "namespace",
        "webhook-order",
    ];
    assert_eq!(names, wanted);
    assert!(
        found.iter().all(|one| one.verdict.level == Good),
        "{found:?}"
    );

    let installed = Facts {
        stage: Stage::Before,
        ..healthy()
    };
    let found = of(Check::NotInstalled, &installed).expect("it is made");
    assert_eq!(found.verdict.level, Warning, "{found:?}");
}
