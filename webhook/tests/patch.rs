//! What a patch changes, and what it does not.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use common::{
    applied, by_default, fixture, injected, istio_init, mutated, typed, with_args, with_metadata,
};
use serde_json::{Value, json};
use sidestep_contract::{Policy, keys};
use sidestep_webhook::cluster::{Cluster, Namespace};
use sidestep_webhook::decide::decide;
use sidestep_webhook::patch::patch;
use sidestep_webhook::settings::Settings;

const REQUIRED: &str = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution";

fn avoiding_unsupported(pod: &Value) -> Value {
    let settings = Settings {
        avoid_unsupported: true,
        ..Settings::default()
    };
    let namespace = Namespace::default();
    let verdict = decide(
        &typed(pod),
        Some(&namespace),
        &Cluster::assumed(),
        &settings,
    );
    applied(pod, &patch(pod, &verdict))
}

fn terms(pod: &Value) -> &Value {
    pod.pointer(&format!("{REQUIRED}/nodeSelectorTerms"))
        .expect("terms")
}

fn with_terms(terms: &Value) -> Value {
    let mut pod = fixture("client");
    pod["spec"]["affinity"] = json!({
        "podAntiAffinity": {"x": 1},
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
        },
    });
    pod
}

fn conditions() -> [Value; 4] {
    [
        json!({"key": "sidestep.dev/unsupported", "operator": "DoesNotExist"}),
        json!({"key": "sidestep.dev/without-agent", "operator": "DoesNotExist"}),
        json!({"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}),
        json!({"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64", "arm64"]}),
    ]
}

#[test]
fn a_fresh_istio_init_beside_the_gate_ends_as_one_gate_with_the_fresh_policy() {
    let gated = mutated(&fixture("client"));
    let fresh = fixture("exclude")["spec"]["initContainers"][0].clone();
    for place in [0, 1, 2] {
        let mut pod = gated.clone();
        let inits = pod["spec"]["initContainers"].as_array_mut();
        inits.expect("a list").insert(place, fresh.clone());
        let after = mutated(&pod);
        assert_eq!(istio_init(&after), 0, "the gate comes before the proxy");
        assert_eq!(
            after["spec"]["initContainers"].as_array().map(Vec::len),
            Some(2)
        );
        let policy = Policy::from_pod(&typed(&fixture("exclude"))).expect("a policy");
        assert_eq!(Policy::from_pod(&typed(&after)), Ok(policy.clone()));
        assert_eq!(
            after["metadata"]["annotations"][keys::POLICY],
            policy.to_string()
        );
        assert_eq!(mutated(&after), after);
    }
}

#[test]
fn a_fresh_istio_init_that_must_be_left_replaces_the_gate() {
    let mut pod = mutated(&fixture("client"));
    let fresh = fixture("tproxy")["spec"]["initContainers"][0].clone();
    let inits = pod["spec"]["initContainers"].as_array_mut();
    inits.expect("a list").push(fresh.clone());
    let after = mutated(&pod);
    assert_eq!(after["spec"]["initContainers"][istio_init(&after)], fresh);
    assert_eq!(after["metadata"]["labels"].get(keys::ACCELERATED), None);
    assert_eq!(after["metadata"]["annotations"].get(keys::POLICY), None);
    assert_eq!(
        after["metadata"]["annotations"][keys::LEFT_ALONE],
        "tproxy: -m (--istio-inbound-interception-mode) is TPROXY"
    );
}

#[test]
fn a_pod_that_brings_our_label_without_a_gate_loses_it_with_a_warning() {
    let pod = with_metadata("tproxy", "labels", keys::ACCELERATED, "true");
    assert_eq!(
        mutated(&pod)["metadata"]["labels"].get(keys::ACCELERATED),
        None
    );
    let warnings = by_default(&pod).warnings;
    assert!(warnings[0].contains("sidestep.dev/accelerated removed"));
}

#[test]
fn a_reason_of_an_earlier_time_goes_when_the_pod_is_accelerated() {
    let pod = with_metadata("client", "annotations", keys::LEFT_ALONE, "no-agent: …");
    assert_eq!(
        mutated(&pod)["metadata"]["annotations"].get(keys::LEFT_ALONE),
        None
    );
}

#[test]
fn a_pod_without_labels_and_annotations_gets_them() {
    let mut pod = fixture("client");
    pod["metadata"] = json!({"generateName": "x-"});
    let after = mutated(&pod);
    assert_eq!(after["metadata"]["labels"][keys::ACCELERATED], "true");
    assert_eq!(
        after["metadata"]["annotations"][keys::SHORTCUT],
        "namespace"
    );
}

#[test]
fn fields_that_no_type_knows_survive() {
    let mut pod = fixture("client");
    pod["future"] = json!({"a/b~c": [1, null]});
    pod["spec"]["future"] = json!(1.5);
    let init = &mut pod["spec"]["initContainers"][0];
    init["future"] = json!("x");
    init["securityContext"]["future"] = json!({"y": 2});
    init["securityContext"]["capabilities"]["future"] = json!(true);
    let after = mutated(&pod);
    let init = &after["spec"]["initContainers"][0];
    assert_eq!(after["future"], pod["future"]);
    assert_eq!(after["spec"]["future"], 1.5);
    assert_eq!(init["future"], "x");
    assert_eq!(init["securityContext"]["future"], json!({"y": 2}));
    assert_eq!(init["securityContext"]["capabilities"]["future"], true);
}

#[test]
fn every_term_is_kept_off_unsupported_nodes_and_keeps_its_own_conditions() {
    let zone = json!({"key": "zone", "operator": "In", "values": ["a"]});
    let field = json!({"key": "metadata.name", "operator": "NotIn", "values": ["a"]});
    let pod = with_terms(&json!([
        {"matchExpressions": [zone]},
        {"matchFields": [field]},
        {},
    ]));
    let after = avoiding_unsupported(&pod);
    let zone_and_ours = [&[zone][..], &conditions()].concat();
    assert_eq!(
        *terms(&after),
        json!([
            {"matchExpressions": zone_and_ours},
            {"matchFields": [field], "matchExpressions": conditions()},
            {},
        ])
    );
    assert_eq!(
        after["spec"]["affinity"]["podAntiAffinity"],
        json!({"x": 1})
    );
    assert_eq!(avoiding_unsupported(&after), after);
}

#[test]
fn a_pod_without_affinity_gets_one_term_and_one_bound_to_a_node_gets_none() {
    let after = avoiding_unsupported(&fixture("client"));
    assert_eq!(*terms(&after), json!([{"matchExpressions": conditions()}]));
    assert_eq!(avoiding_unsupported(&after), after);
    let field = json!({"key": "metadata.name", "operator": "In", "values": ["a"]});
    let bound = with_terms(&json!([{"matchFields": [field]}]));
    let after = avoiding_unsupported(&bound);
    assert_eq!(*terms(&after), *terms(&bound));
}

/// An autoscaler asks whether a pod would fit a node that has nothing but what its template says.
#[test]
fn all_that_is_asked_of_a_node_is_its_kind_and_that_it_has_none_of_our_labels() {
    let mut with_terms = 0;
    for (name, pod) in injected() {
        let mut after = avoiding_unsupported(&pod);
        let Some(now) = after.pointer_mut(&format!("{REQUIRED}/nodeSelectorTerms")) else {
            continue;
        };
        for term in now.as_array_mut().expect("a list") {
            // One that is bound to a node goes there in any case.
            let expressions = term.get_mut("matchExpressions");
            let Some(expressions) = expressions.and_then(Value::as_array_mut) else {
                continue;
            };
            let own = expressions.len() - conditions().len();
            assert_eq!(expressions.split_off(own), conditions(), "{name}");
            if expressions.is_empty() {
                term.as_object_mut()
                    .expect("an object")
                    .remove("matchExpressions");
            }
            with_terms += 1;
        }
        let before = pod.pointer(&format!("{REQUIRED}/nodeSelectorTerms"));
        assert_eq!(&*now, before.unwrap_or(&json!([{}])), "{name}");
        for field in [
            "nodeSelector",
            "tolerations",
            "topologySpreadConstraints",
            "schedulerName",
        ] {
            assert_eq!(after["spec"][field], pod["spec"][field], "{name}: {field}");
        }
    }
    assert!(with_terms >= 40, "only {with_terms}");
}

#[test]
fn arguments_before_two_dashes_and_slashes_in_keys_are_handled() {
    let pod = with_args("client", &["--", "-u2"]);
    let after = mutated(&pod);
    let args = after["spec"]["initContainers"][0]["args"].as_array();
    let args = args.expect("arguments");
    assert_eq!(args[args.len() - 2..], ["--", "-u2"]);
    assert_eq!(args[args.len() - 3], "--probe-timeout=300s");
    assert_eq!(mutated(&after), after);
    assert_eq!(after["metadata"]["labels"][keys::ACCELERATED], "true");
}
