//! Whatever arrives: once is enough, nothing else changes, and the policy stays.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use std::collections::BTreeMap;

use common::{applied, by_default, fixture, injected, istio_init, mutated, place, typed};
use json_patch::PatchOperation;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};
use sidestep_contract::{IstioInit, Policy, istio_inits, keys};
use sidestep_webhook::cluster::{Agent, Cluster, Facts, Namespace, Node};
use sidestep_webhook::decide::{Decision, Verdict, decide};
use sidestep_webhook::patch::patch;
use sidestep_webhook::settings::{Enrolment, Reach, Settings};

fn settings() -> impl Strategy<Value = Settings> {
    let reach = prop_oneof![
        Just(Reach::Off),
        Just(Reach::Pod),
        Just(Reach::Namespace),
        Just(Reach::Node)
    ];
    (any::<bool>(), reach, 1..900_u64, any::<bool>()).prop_map(|(ask, reach, seconds, avoid)| {
        Settings {
            enrolment: if ask {
                Enrolment::OptIn
            } else {
                Enrolment::OptOut
            },
            reach,
            probe_timeout: std::time::Duration::from_secs(seconds),
            avoid_unsupported: avoid,
            ..Settings::default()
        }
    })
}

/// Keys with what JSON Pointer escapes, and our own with good and bad words.
fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    let ours = prop_oneof![
        Just(keys::ENABLED),
        Just(keys::SHORTCUT),
        Just(keys::SHORTCUT_INTO),
        Just(keys::ACCELERATED),
        Just(keys::LEFT_ALONE),
        Just(keys::POLICY),
    ];
    let key = prop_oneof![ours.prop_map(str::to_owned), "[a~/0-1é]{1,6}"];
    let word = prop_oneof![
        Just("true".to_owned()),
        Just("false".to_owned()),
        Just("node".to_owned()),
        Just("application".to_owned()),
        ".{0,8}",
    ];
    btree_map(key, word, 0..5)
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let label = prop_oneof![
        Just((keys::OS, "linux")),
        Just((keys::ARCHITECTURE, "arm64")),
        Just((keys::UNSUPPORTED, "virtual")),
        Just((keys::WITHOUT_AGENT, "missing")),
    ];
    let agent = prop_oneof![
        Just(Agent::Missing),
        Just(Agent::NotReady),
        Just(Agent::Older),
        Just(Agent::Ready)
    ];
    let node = (vec(label, 0..5), agent).prop_map(|(labels, agent)| {
        let labels = labels
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let facts = Facts {
            labels: labels.collect(),
            ..Facts::default()
        };
        Node {
            facts: facts.into(),
            agent,
        }
    });
    prop_oneof![
        4 => Just(Cluster::assumed()),
        1 => btree_map("[abc]", node, 0..3).prop_map(|nodes| Cluster { nodes: Some(nodes), ..Cluster::default() }),
    ]
}

fn arguments() -> impl Strategy<Value = Vec<String>> {
    let one = prop_oneof![
        Just("-o15002"),
        Just("-o=1:20000"),
        Just("--redirect-dns"),
        Just("-i="),
        Just("-u0,1337"),
        Just("--iptables-probe-port=53"),
        Just("-c=eth1"),
        Just("--"),
        Just("--run-validation"),
    ];
    vec(one.prop_map(str::to_owned), 0..3)
}

/// A fixture with fields that nobody knows, further texts and arguments, affinity, and perhaps a second `istio-init`.
fn pod() -> impl Strategy<Value = Value> {
    let pods = prop::sample::select(injected());
    let terms = prop_oneof![
        Just(Value::Null),
        Just(json!([{}, {"matchExpressions": [{"key": "a", "operator": "Exists"}], "x": 1}])),
        Just(
            json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}])
        ),
    ];
    (pods, texts(), texts(), arguments(), terms, any::<[bool; 3]>()).prop_map(
        |((_, mut pod), labels, annotations, args, terms, [second, future, no_metadata])| {
            if no_metadata {
                pod["metadata"] = json!({"future": 1});
            }
            merge(&mut pod["metadata"], "labels", &labels);
            merge(&mut pod["metadata"], "annotations", &annotations);
            let place = place(&pod).expect("an istio-init");
            let inits = pod["spec"]["initContainers"].as_array_mut().expect("a list");
            let list = inits[place]["args"].as_array_mut().expect("arguments");
            list.extend(args.into_iter().map(Value::from));
            if second {
                inits.push(fixture("exclude")["spec"]["initContainers"][0].clone());
            }
            if future {
                pod["spec"]["future"] = json!({"a": [null, {}]});
                pod["spec"]["initContainers"][place]["securityContext"]["future"] = json!(1);
            }
            if !terms.is_null() {
                pod["spec"]["affinity"] = json!({"nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
                }});
            }
            pod
        },
    )
}

fn merge(metadata: &mut Value, field: &str, texts: &BTreeMap<String, String>) {
    for (key, value) in texts {
        metadata[field][key] = value.as_str().into();
    }
}

fn path(operation: &PatchOperation) -> &str {
    match operation {
        PatchOperation::Add(add) => add.path.as_str(),
        PatchOperation::Remove(remove) => remove.path.as_str(),
        PatchOperation::Replace(replace) => replace.path.as_str(),
        other => panic!("{other:?}"),
    }
}

/// The document without what the patch names.
fn rest(document: &Value, verdict: &Verdict) -> Value {
    let mut rest = document.clone();
    if let Some(inits) = rest["spec"]["initContainers"].as_array_mut() {
        inits.retain(|container| container["name"] != "istio-init");
    }
    for field in ["labels", "annotations"] {
        if let Some(texts) = rest["metadata"][field].as_object_mut() {
            texts.retain(|key, _| !key.starts_with("sidestep.dev/"));
        }
        if rest["metadata"][field]
            .as_object()
            .is_none_or(serde_json::Map::is_empty)
        {
            rest["metadata"]
                .as_object_mut()
                .expect("metadata")
                .remove(field);
        }
    }
    if matches!(&verdict.decision, Decision::Accelerate(made) if made.avoid_unsupported) {
        rest["spec"]
            .as_object_mut()
            .expect("a spec")
            .remove("affinity");
    }
    rest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_patch_is_idempotent_and_touches_only_what_it_names(
        pod in pod(),
        labels in texts(),
        cluster in cluster(),
        settings in settings(),
    ) {
        let namespace = Namespace { labels, ..Namespace::default() };
        let verdict = decide(&typed(&pod), Some(&namespace), &cluster, &settings);
        let patch_of = |pod: &Value, verdict: &Verdict| patch(pod, verdict);
        let made = patch_of(&pod, &verdict);
        let once = applied(&pod, &made);

        let again = decide(&typed(&once), Some(&namespace), &cluster, &settings);
        prop_assert_eq!(patch_of(&once, &again).0, vec![], "twice is once");
        prop_assert_eq!(again.decision.word(), verdict.decision.word());

        prop_assert_eq!(rest(&once, &verdict), rest(&pod, &verdict));
        for operation in &made.0 {
            let path = path(operation);
            let ours = path.contains("sidestep.dev~1")
                || path == "/metadata/labels"
                || path == "/metadata/annotations"
                || path.starts_with("/spec/initContainers/")
                || path.starts_with("/spec/affinity");
            prop_assert!(ours, "{}", path);
        }

        let labelled = once["metadata"]["labels"].get(keys::ACCELERATED).is_some();
        match &verdict.decision {
            Decision::Accelerate(made) => {
                prop_assert_eq!(Policy::from_pod(&typed(&once)), Ok(made.policy.clone()));
                // Where a gate can no longer be read, the one that it was made of counts.
                let kept = policies(&pod).into_iter().any(|policy| {
                    let probe_port = made.policy.probe_port;
                    Policy { probe_port, ..policy } == made.policy
                });
                prop_assert!(kept, "the policy stays but for the gate's own probe: {}", made.policy);
                prop_assert!(labelled);
            }
            Decision::Leave(_) => prop_assert!(!labelled),
            Decision::Nothing(_) => prop_assert!(!labelled || pod == once),
            Decision::Refuse(_) => prop_assert_eq!(&pod, &once),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Not what Istio's injector does when it is invoked again (it overwrites the gate in place, as fixture `reinjected`
    /// shows), but another injector might.
    #[test]
    fn of_a_gate_and_a_fresh_istio_init_beside_it_one_gate_is_left(
        (_, pod) in prop::sample::select(injected()),
        (_, other) in prop::sample::select(injected()),
        at in any::<prop::sample::Index>(),
    ) {
        let gated = mutated(&pod);
        prop_assume!(matches!(by_default(&gated).decision, Decision::Accelerate(_)));
        let fresh = other["spec"]["initContainers"][place(&other).expect("an istio-init")].clone();
        let mut both = gated.clone();
        let inits = both["spec"]["initContainers"].as_array_mut().expect("a list");
        let gate = place(&gated).expect("a gate");
        let at = at.index(inits.len() + 1);
        inits.insert(at, fresh.clone());

        let after = mutated(&both);
        let left = place(&after).expect("one is left");
        prop_assert_eq!(istio_init(&after), left);
        prop_assert_eq!(&mutated(&after), &after);
        let others = |pod: &Value| {
            let inits = pod["spec"]["initContainers"].as_array().cloned().expect("a list");
            inits.into_iter().filter(|init| init["name"] != "istio-init").collect::<Vec<_>>()
        };
        prop_assert_eq!(others(&after), others(&gated), "the others keep their order");
        if let Decision::Accelerate(made) = by_default(&both).decision {
            prop_assert_eq!(left, at.min(gate), "in the place of the first");
            prop_assert_eq!(Policy::from_pod(&typed(&after)), Ok(made.policy.clone()));
            let mut alone = pod.clone();
            alone["spec"]["initContainers"] = json!([fresh]);
            let mut wanted = verdict_policy(&alone);
            wanted.probe_port = made.policy.probe_port;
            prop_assert_eq!(made.policy, wanted, "the fresh one's");
        } else {
            prop_assert_eq!(&after["spec"]["initContainers"][left], &fresh);
            prop_assert_eq!(after["metadata"]["labels"].get(keys::ACCELERATED), None);
        }
    }
}

/// The policy of the one `istio-init`: no pod here has two of them and is accelerated, for neither is a gate.
fn verdict_policy(pod: &Value) -> Policy {
    Policy::from_pod(&typed(pod)).expect("an accelerated pod has a policy")
}

/// The policies of all `istio-init` containers that can be read, and of what gates among them were made of.
fn policies(pod: &Value) -> Vec<Policy> {
    let pod = typed(pod);
    let inits = istio_inits(&pod).expect("an accelerated pod has an istio-init");
    let both = inits.into_iter().flat_map(|init| {
        let original = init.original();
        let original = original.map(|original| IstioInit::read(init.index, &original).policy);
        [Some(init.policy), original]
    });
    both.flatten().flatten().collect()
}
