//! The ways in which pods come to be injected.

use serde_json::json;
use sidestep_cluster::{
    agent::said,
    room::{objects, until},
    twins::Twins,
};
use sidestep_kit::needs;

use crate::world::{is_gated, istio_init, shared};

#[needs(sidestep_cluster::programs)]
fn a_pod_of_a_job_gets_the_gate() {
    let cluster = shared();
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

#[needs(sidestep_cluster::programs)]
fn a_namespace_with_a_revision_is_served_too() {
    let cluster = shared();
    let room = cluster.room("revision", &[("istio.io/rev", "default")]);
    room.apply(&[objects::client("client")]);
    room.accelerated(&["client"]);
    let pod = room.get("pod client");
    assert!(is_gated(&pod), "{pod:#}");
}

#[needs(sidestep_cluster::programs)]
fn a_kube_injected_pod_gets_the_gate_and_does_what_it_does_with_iptables() {
    let cluster = shared();
    let all = [
        objects::server("server"),
        objects::service("server"),
        objects::client("client"),
    ];
    let twins = Twins::made(&cluster, "file", &[], &["server", "client"], |room| {
        for object in &all {
            let mut object = object.clone();
            object["metadata"]["namespace"] = json!(room.name());
            let words = "kube-inject --revision default -f -";
            let output = cluster.istioctl(words, &object.to_string());
            assert!(output.status.success(), "{}", said(&output));
            let injected = String::from_utf8(output.stdout).expect("text");
            assert_eq!(injected.contains("istio-init"), object["kind"] == "Pod");
            let output = room.try_kubectl_with("create -f -", &injected);
            assert!(output.status.success(), "{}", said(&output));
        }
    });
    let pod = twins.ours.get("pod client");
    assert!(is_gated(&pod), "{pod:#}");
    twins.warm("client", "http://server");
    let said = twins.run("client", "wget -qO- http://server/");
    assert!(said.contains("x-forwarded-client-cert"), "{said}");
    twins.logged_the_same(&[("client", 1), ("server", 1)]);
}

#[needs(sidestep_cluster::programs)]
fn a_sidecar_that_is_no_native_one_is_served_too() {
    let cluster = shared();
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

#[needs(sidestep_cluster::programs)]
fn istios_own_annotations_stay_in_force() {
    let cluster = shared();
    let room = cluster.mesh_room("lists");
    let mut pod = objects::client("client");
    pod["metadata"]["annotations"] =
        json!({"traffic.sidecar.istio.io/excludeOutboundPorts": "5432"});
    let pod = room.admit(&pod).pod;
    assert!(is_gated(&pod), "{pod:#}");
    let gate = istio_init(&pod)[0]["args"].to_string();
    assert!(gate.contains(r#""-o","5432""#), "{gate}");
}
