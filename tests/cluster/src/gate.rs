//! What the webhook, or Istio alone, made of a pod.

use serde_json::{Value, json};

/// The containers named `istio-init`.
pub fn istio_init(pod: &Value) -> Vec<&Value> {
    let containers = pod["spec"]["initContainers"].as_array();
    let containers = containers.into_iter().flatten();
    containers
        .filter(|container| container["name"] == "istio-init")
        .collect()
}

/// Whether a pod's one `istio-init` is the gate, without a privilege, and the pod has the label.
pub fn is_gated(pod: &Value) -> bool {
    let [gate] = istio_init(pod)[..] else {
        return false;
    };
    let context = &gate["securityContext"];
    let arguments = gate["args"].as_array().expect("istio-init has arguments");
    arguments.contains(&json!("--run-validation"))
        && arguments.contains(&json!("--skip-rule-apply"))
        && context["capabilities"] == json!({"drop": ["ALL"]})
        && context["runAsNonRoot"] == json!(true)
        && pod["metadata"]["labels"]["sidestep.dev/accelerated"] == "true"
}

/// Whether a pod is as Istio makes it: `istio-init` writes iptables rules, and no label of ours.
pub fn is_plain_istio(pod: &Value) -> bool {
    let [init] = istio_init(pod)[..] else {
        return false;
    };
    let arguments = init["args"].as_array().expect("istio-init has arguments");
    let capabilities = init["securityContext"]["capabilities"]["add"].as_array();
    !arguments.contains(&json!("--run-validation"))
        && capabilities.is_some_and(|added| added.contains(&json!("NET_ADMIN")))
        && pod["metadata"]["labels"]["sidestep.dev/accelerated"].is_null()
}

/// Why a pod was left to Istio, as it says itself: `reason: sentence`.
pub fn left_alone(pod: &Value) -> Option<&str> {
    pod["metadata"]["annotations"]["sidestep.dev/left-alone"].as_str()
}

/// The reason in a word.
pub fn reason(pod: &Value) -> Option<&str> {
    left_alone(pod)?.split(':').next()
}
