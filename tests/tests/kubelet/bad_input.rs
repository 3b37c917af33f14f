//! What the API server tells and what is not as it should be: an Event and a metric, and no delay for others.

use serde_json::{Value, json};
use sidestep_kit::{
    actor::assert_captured,
    kubelet::{KubeNode, PATIENCE, pod},
    needs,
    process::eventually,
    redirect::{PodState, SERVICE},
};

/// The pod is left alone for this reason, and another one beside it is armed.
fn is_left_alone(manifest: impl Fn(&str) -> Value, word: &str, sentence: &str) {
    let node = KubeNode::with_agent();
    let bad = node.create_as("bad", &manifest(&node.name));
    let good = node.create("good", "");
    let sandbox = bad.sandbox("10.77.0.10");
    let other = good.sandbox("10.77.0.11");
    let _proxies = [sandbox.proxy(), other.proxy()];
    node.wait_for("good", PodState::Active);
    assert_captured(&other.app(), "outbound", SERVICE);

    let left = node.wait_for("bad", PodState::Left);
    let reason = left.reason.expect("a reason");
    assert!(reason.contains(sentence), "{reason}");
    let text = node.wait_for_event(&bad, "NotAccelerated");
    assert!(text.contains(sentence), "{text}");
    let metric = format!("sidestep_agent_pods_left_total{{reason=\"{word}\"}}");
    node.wait_for_metric(&metric, 1.0..);
    assert!(sandbox.app().call(SERVICE).is_err(), "it is captured");
    assert_eq!(node.inbound_links(), 1);
}

#[needs(apiserver)]
fn a_label_without_a_gate_is_refused() {
    let ungated = |node: &str| {
        let mut pod = pod("bad", node, "");
        let init = &mut pod["spec"]["initContainers"][0];
        init["args"] = json!([
            "istio-iptables",
            "-p",
            "15001",
            "-u",
            "1337",
            "-m",
            "REDIRECT"
        ]);
        pod
    };
    is_left_alone(ungated, "no-gate", "is not a gate");
}

#[needs(apiserver)]
fn a_label_without_any_istio_init_is_refused() {
    let bare = |node: &str| {
        let mut pod = pod("bad", node, "");
        pod["spec"]["initContainers"] = json!([]);
        pod
    };
    is_left_alone(
        bare,
        "no-istio-init",
        "no init container is named istio-init",
    );
}

#[needs(apiserver)]
fn a_gate_whose_arguments_do_not_parse_is_refused() {
    let wrong = |node: &str| pod("bad", node, "-o 99999");
    is_left_alone(wrong, "bad-value", "99999");
}

#[needs(apiserver)]
fn a_pod_in_the_nodes_own_network_is_refused() {
    let host = |node: &str| {
        let mut pod = pod("bad", node, "");
        pod["spec"]["hostNetwork"] = json!(true);
        pod
    };
    is_left_alone(host, "host-network", "hostNetwork");
}

#[needs(apiserver)]
fn a_pod_whose_sandbox_is_never_created_is_reported() {
    let node = KubeNode::with_agent();
    let never = node.create("never", "");
    let good = node.create("good", "");
    let sandbox = good.sandbox("10.77.0.11");
    node.wait_for("good", PodState::Armed);
    node.wait_for_event(&never, "NoSandbox");
    node.wait_for_metric(
        "sidestep_agent_arming_failures_total{reason=\"no-sandbox\"}",
        1.0..,
    );
    drop(sandbox);
}

/// Somebody with the right to patch pods/status, where no policy forbids it.
#[needs(apiserver)]
fn a_label_that_is_taken_away_frees_nobody() {
    let mut node = KubeNode::with_agent();
    let pod = node.create("web", "");
    let (sandbox, _proxy) = pod.active("10.77.0.10");
    let app = sandbox.app();
    assert_captured(&app, "outbound", SERVICE);

    let patch = "{\"metadata\":{\"labels\":{\"sidestep.dev/accelerated\":null}}}";
    node.server().must(&format!(
        "patch pod web -n {} --subresource=status --type=merge -p {patch}",
        node.name
    ));
    node.agent().wait("the pod to be forgotten", || {
        node.agent().pod("web").is_none()
    });
    assert_captured(&app, "outbound", SERVICE);
    // Not even by the next agent.
    node.take_agent().stop();
    node.start_agent();
    assert_captured(&app, "outbound", SERVICE);
    drop(sandbox);
    assert!(
        eventually(PATIENCE, || node.inbound_links() == 0),
        "the link stays"
    );
}

/// A label that somebody puts on a pod of Istio's own.
#[needs(apiserver)]
fn a_label_that_is_forged_later_captures_nobody() {
    let node = KubeNode::with_agent();
    let mut manifest = pod("plain", &node.name, "");
    manifest["metadata"]["labels"] = json!({});
    manifest["spec"]["initContainers"][0]["args"] = json!(["istio-iptables", "-u", "1337"]);
    let plain = node.create_as("plain", &manifest);
    let sandbox = plain.sandbox("10.77.0.10");
    let _proxy = sandbox.proxy();
    node.server().must(&format!(
        "label pod plain -n {} sidestep.dev/accelerated=true",
        node.name
    ));
    node.wait_for("plain", PodState::Left);
    let text = node.wait_for_event(&plain, "NotAccelerated");
    assert!(text.contains("is not a gate"), "{text}");
    node.wait_for_metric("sidestep_agent_pods_left_total{reason=\"no-gate\"}", 1.0..);
    assert!(sandbox.app().call(SERVICE).is_err(), "it is captured");
}

#[needs(apiserver)]
fn pods_that_vanish_half_way_leave_nothing() {
    let node = KubeNode::with_agent();
    for n in 0..20 {
        let pod = node.create(&format!("brief-{n}"), "");
        let sandbox = pod.sandbox("10.77.0.10");
        if n % 2 == 0 {
            pod.delete();
            sandbox.end();
        } else {
            sandbox.end();
            pod.delete();
        }
    }
    node.agent().wait("the pods to be forgotten", || {
        node.agent()
            .status()
            .is_some_and(|status| status.pods.is_empty())
    });
    assert!(
        eventually(PATIENCE, || node.inbound_links() == 0),
        "links stay"
    );
    // Nothing was wrong with them, so there is no Event; but what was armed is counted as let go.
    let let_go = || {
        let armed = node.metric("sidestep_agent_programming_duration_seconds_count");
        (armed - node.metric("sidestep_agent_released_total")).abs() < 0.1
    };
    assert!(eventually(PATIENCE, let_go), "{}", node.admin("/metrics").1);
    node.wait_for_metric("sidestep_agent_lingering_namespaces", ..=0.0);
    let pod = node.create("web", "");
    let (sandbox, _proxy) = pod.active("10.77.0.10");
    assert_captured(&sandbox.app(), "outbound", SERVICE);
}
