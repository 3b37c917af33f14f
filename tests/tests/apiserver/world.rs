//! A cluster without kubelets as a person at a desk sees it: nodes of several kinds, agents' pods, pods in every state.

use serde_json::{Value, json};
use sidestep_kit::apiserver::ApiServer;

use crate::pods::{gated, injected};

pub(crate) const SIDESTEP: &str = "sidestep-system";

/// Registers a node that reports this of itself, as its kubelet would. Nothing answers at its address.
pub(crate) fn node(server: &ApiServer, name: &str, arch: &str, kernel: &str, labels: &Value) {
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
    });
    server.feed("create", &node).expect("a node");
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}},
        "nodeInfo": {
            "operatingSystem": "linux", "architecture": arch, "kernelVersion": kernel,
            "bootID": "", "containerRuntimeVersion": "", "kubeProxyVersion": "",
            "kubeletVersion": "", "machineID": "", "osImage": "", "systemUUID": "",
        },
    }});
    write_status(server, &format!("node {name}"), &status);
}

/// Writes the status of an object, as the component does that reports it.
pub(crate) fn write_status(server: &ApiServer, object: &str, status: &Value) {
    server.must(&format!(
        "patch {object} --subresource=status --type=merge -p {status}"
    ));
}

/// The pod of a node's agent, as the DaemonSet's controller and kubelet make it.
pub(crate) fn agent(server: &ApiServer, node: &str) {
    let name = format!("sidestep-agent-{node}");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": SIDESTEP,
            "labels": {"app.kubernetes.io/name": "sidestep-agent", "app.kubernetes.io/part-of": "sidestep"},
        },
        "spec": {"nodeName": node, "containers": [{"name": "agent", "image": "sidestep.invalid/agent:0.1.0"}]},
    });
    server.feed("create", &pod).expect("an agent's pod");
    let object = format!("pod {name} -n {SIDESTEP}");
    write_status(server, &object, &json!({"status": {"phase": "Running"}}));
}

/// An accelerated pod on a node, whose gate is in this state.
pub(crate) fn accelerated(server: &ApiServer, name: &str, node: &str, gate: &Value) {
    let mut pod = gated(name);
    pod["spec"]["nodeName"] = node.into();
    server.feed("create", &pod).expect("a gated pod");
    let status = json!({"status": {"phase": "Pending", "initContainerStatuses": [{
        "name": "istio-init", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": gate,
    }]}});
    write_status(server, &format!("pod {name}"), &status);
}

/// The state of a gate that let its pod pass.
pub(crate) fn opened() -> Value {
    json!({"terminated": {"exitCode": 0}})
}

/// The state of a gate that waits.
pub(crate) fn shut() -> Value {
    json!({"running": {}})
}

/// A pod that the webhook left to Istio.
pub(crate) fn left(server: &ApiServer, name: &str, why: &str) {
    let mut pod = injected(name);
    pod["metadata"]["annotations"]["sidestep.dev/left-alone"] = why.into();
    server.feed("create", &pod).expect("a pod");
}
