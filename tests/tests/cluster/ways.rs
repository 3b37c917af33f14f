//! The ways in which pods come to be injected.

use serde_json::json;
use sidestep_tests::cluster::kit::{objects, until};

use crate::world::{is_gated, istio_init, shared};

#[test]
fn a_pod_of_a_job_gets_the_gate() {
    let Some(cluster) = shared() else { return };
    let room = cluster.mesh_room("job");
    room.apply(&[objects::job("once", &json!(["true"]))]);
    let mut pods = json!(null);
    until("the job's pod", || {
        pods = room.get("pods -l job-name=once");
        pods["items"]
            .as_array()
            .is_some_and(|items| !items.is_empty())
    });
    assert!(is_gated(&pods["items"][0]), "{pods:#}");
}

#[test]
fn a_namespace_with_a_revision_is_served_too() {
    let Some(cluster) = shared() else { return };
    let room = cluster.room("revision", &[("istio.io/rev", "default")]);
    room.apply(&[objects::client("client")]);
    room.accelerated(&["client"]);
    let pod = room.get("pod client");
    assert!(is_gated(&pod), "{pod:#}");
}

#[test]
fn a_kube_injected_pod_gets_the_gate() {
    let Some(cluster) = shared() else { return };
    let room = cluster.room("file", &[]);
    let mut pod = objects::client("client");
    pod["metadata"]["namespace"] = json!(room.name());
    let output = cluster.istioctl("kube-inject --revision default -f -", &pod.to_string());
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let injected = String::from_utf8(output.stdout).expect("text");
    assert!(injected.contains("istio-init"));
    let output = room.try_kubectl_with("create -f -", &injected);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    room.accelerated(&["client"]);
    let pod = room.get("pod client");
    assert!(is_gated(&pod), "{pod:#}");
}

#[test]
fn a_sidecar_that_is_no_native_one_is_served_too() {
    let Some(cluster) = shared() else { return };
    let room = cluster.mesh_room("classic");
    let mut pod = objects::client("client");
    pod["metadata"]["annotations"] = json!({"sidecar.istio.io/nativeSidecar": "false"});
    room.apply(&[pod]);
    room.accelerated(&["client"]);
    let pod = room.get("pod client");
    assert!(is_gated(&pod), "{pod:#}");
    let containers = pod["spec"]["containers"].as_array().expect("containers");
    assert!(
        containers
            .iter()
            .any(|container| container["name"] == "istio-proxy")
    );
}

#[test]
fn istios_own_annotations_stay_in_force() {
    let Some(cluster) = shared() else { return };
    let room = cluster.mesh_room("lists");
    let mut pod = objects::client("client");
    pod["metadata"]["annotations"] =
        json!({"traffic.sidecar.istio.io/excludeOutboundPorts": "5432"});
    let pod = room.admit(&pod).pod;
    assert!(is_gated(&pod), "{pod:#}");
    let gate = istio_init(&pod)[0]["args"].to_string();
    assert!(gate.contains(r#""-o","5432""#), "{gate}");
}
