//! Large pods: what is done to them stays small.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use common::{applied, by_default, fixture, istio_init, mutated};
use serde_json::{Value, json};
use sidestep_webhook::patch::patch;

/// The patch as it is sent.
fn operations(pod: &Value) -> String {
    let patch = patch(pod, &by_default(pod));
    serde_json::to_string(&patch).expect("a patch is JSON")
}

#[test]
fn among_a_thousand_containers_only_istio_init_changes() {
    let mut pod = fixture("client");
    let container =
        |i: usize| json!({"name": format!("c{i}"), "image": "a/b", "args": ["istio-iptables"]});
    let containers = pod["spec"]["containers"].as_array_mut().expect("a list");
    containers.extend((0..1000).map(container));
    let inits = pod["spec"]["initContainers"]
        .as_array_mut()
        .expect("a list");
    inits.splice(0..0, (0..1000).map(container));
    assert_eq!(istio_init(&pod), 1000);

    let small = operations(&fixture("client"));
    let large = operations(&pod);
    assert_eq!(
        large,
        small.replace("/initContainers/0/", "/initContainers/1000/")
    );
    let mut after = mutated(&pod);
    assert_eq!(mutated(&after), after);
    after["spec"]["initContainers"][1000] = pod["spec"]["initContainers"][1000].clone();
    assert_eq!(after["spec"], pod["spec"]);
}

#[test]
fn a_pod_of_five_mebibytes_gets_the_patch_of_a_small_one() {
    let mut pod = fixture("client");
    pod["metadata"]["annotations"]["a/b~c"] = "~/\"\u{1f642}".repeat(700_000).into();
    assert!(pod.to_string().len() > 5 << 20);
    assert_eq!(operations(&pod), operations(&fixture("client")));
}

#[test]
fn ten_thousand_ports_are_told_in_short() {
    let ports: Vec<String> = (20_000..30_000).map(|port| port.to_string()).collect();
    let pod = common::with_args("client", &["-o", &ports.join(",")]);
    let after = mutated(&pod);
    let policy = &after["metadata"]["annotations"]["sidestep.dev/policy"];
    let policy = policy.as_str().expect("a text");
    assert!(
        policy.contains("20000,20001") && policy.len() < 300,
        "{policy}"
    );
    assert_eq!(applied(&pod, &patch(&pod, &by_default(&pod))), after);
}
