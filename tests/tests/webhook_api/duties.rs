//! What the leader does for all: labels on nodes, and pods that wait.

use serde_json::{Value, json};
use sidestep_kit::{apiserver::ApiServer, needs};

use crate::{
    cluster::{ADDRESSES, injected, installed, is_gated, mutated, route, status},
    replica::Replica,
    until,
};

const UNSUPPORTED: &str = "sidestep.dev/unsupported";

fn node(server: &ApiServer, name: &str, kernel: &str, labels: &Value) {
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
    server.feed("create", &node).expect("a node");
    kernel_of(server, name, kernel);
}

fn kernel_of(server: &ApiServer, name: &str, kernel: &str) {
    let info = json!({"nodeInfo": {
        "operatingSystem": "linux", "architecture": "amd64", "kernelVersion": kernel,
        "bootID": "", "containerRuntimeVersion": "", "kubeProxyVersion": "", "kubeletVersion": "",
        "machineID": "", "osImage": "", "systemUUID": ""}});
    status(server, &format!("node {name}"), &info);
}

fn label(server: &ApiServer, name: &str) -> Value {
    server.get(&format!("node {name}"))["metadata"]["labels"][UNSUPPORTED].clone()
}

#[needs(apiserver, part("helm"))]
fn nodes_that_cannot_run_sidestep_are_labelled_until_they_can() {
    let server = installed(&["labelUnsupportedNodes=true"]);
    node(&server, "old", "5.10.0-30-amd64", &json!({}));
    node(
        &server,
        "new",
        "6.12.1",
        &json!({UNSUPPORTED: "kernel-too-old"}),
    );
    node(&server, "mine", "6.12.1", &json!({UNSUPPORTED: "because"}));
    let replica = Replica::start(&server, "one", ADDRESSES[0], &["--label-unsupported-nodes"]);
    until("the old one is labelled", || {
        label(&server, "old") == "kernel-too-old"
    });
    until("the new one is not", || label(&server, "new").is_null());
    assert_eq!(label(&server, "mine"), "because");
    kernel_of(&server, "old", "6.1.0-40-amd64");
    until("it has been upgraded", || label(&server, "old").is_null());
    assert!(!replica.log().contains("forbidden"), "{}", replica.log());
}

/// Creates a pod that waits at its gate on a node where no agent is.
fn waiting(server: &ApiServer, name: &str, owner: &Value) {
    let mut pod = injected(name);
    pod["metadata"]["ownerReferences"] = owner.clone();
    server.feed("create", &pod).expect("a pod");
    assert!(is_gated(&server.get(&format!("pod {name}"))));
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
        "target": {"kind": "Node", "name": "without-agent"}});
    let path = format!("create --raw /api/v1/namespaces/default/pods/{name}/binding");
    server.feed(&path, &binding).expect("it is scheduled");
    let gate = json!({"phase": "Pending", "initContainerStatuses": [{
        "name": "istio-init", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]});
    status(server, &format!("pod {name}"), &gate);
}

fn events(server: &ApiServer, reason: &str) -> Vec<Value> {
    let all = server.get("events.events.k8s.io");
    let all = all["items"].as_array().expect("a list").clone();
    all.into_iter()
        .filter(|event| event["reason"] == reason)
        .collect()
}

#[needs(apiserver, part("helm"))]
fn pods_that_wait_where_no_agent_is_are_reported_once_and_then_deleted_if_others_will_be_made() {
    let server = installed(&["waiting.deleteSeconds=30"]);
    let arguments = ["--waiting-report=1", "--waiting-delete=8"];
    let replica = Replica::start(&server, "one", ADDRESSES[0], &arguments);
    replica.ready();
    route(&server, &ADDRESSES[..1]);
    until("a pod is gated", || {
        mutated(&server, "probe").is_ok_and(|pod| is_gated(&pod))
    });
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r",
        "uid": "6b5c2b1e-3f0a-4a57-9a4e-000000000000", "controller": true}]);
    waiting(&server, "owned", &owner);
    waiting(&server, "bare", &json!([]));
    until("both are reported", || {
        events(&server, "WaitingForSidestep").len() == 2
    });
    let note = events(&server, "WaitingForSidestep")[0]["note"].clone();
    let note = note.as_str().unwrap_or_default();
    assert!(
        note.contains("none is ready on node without-agent"),
        "{note}"
    );
    assert!(note.contains("sidestep.dev/enabled=false"), "{note}");
    until("the one with a controller is deleted", || {
        server.kubectl(["get", "pod", "owned"]).is_err()
            || !server.get("pod owned")["metadata"]["deletionTimestamp"].is_null()
    });
    until("it is told", || {
        !events(&server, "DeletedBySidestep").is_empty()
    });
    assert_eq!(events(&server, "DeletedBySidestep").len(), 1);
    assert_eq!(events(&server, "WaitingForSidestep").len(), 2, "once each");
    let bare = server.get("pod bare");
    assert!(bare["metadata"]["deletionTimestamp"].is_null());
    until("the metric says so", || {
        let metrics = replica.ask("/metrics");
        metrics.contains("sidestep_webhook_waiting_pods_deleted_total 1")
    });
    assert!(!replica.log().contains("forbidden"), "{}", replica.log());
}
