//! What the webhook makes of new pods.

use serde_json::json;
use sidestep_tests::cluster::kit::{objects, until};

use crate::world::{
    alone, is_gated, is_plain_istio, left_alone, reason, shared, start_agent, stop_agent,
};

#[test]
fn an_injected_pod_gets_the_gate_and_waits_at_it() {
    let Some(cluster) = shared() else { return };
    let room = cluster.mesh_room("gate");
    room.apply(&[objects::server("server")]);
    until("the gate runs", || {
        room.init_state("server", "istio-init") == "running"
    });
    // Nobody programs this pod, so the gate's probe is refused, again and again.
    until("the gate probes", || {
        room.logs("server", "istio-init")
            .contains("connection refused")
    });
    let pod = room.get("pod server");
    assert!(is_gated(&pod), "{pod:#}");
    assert_eq!(pod["status"]["phase"], "Pending");
    let policy = pod["metadata"]["annotations"]["sidestep.dev/policy"].as_str();
    assert!(policy.is_some_and(|policy| !policy.is_empty()));
}

#[test]
fn without_an_agent_pods_stay_with_istio_and_say_so() {
    let Some(cluster) = alone() else { return };
    stop_agent(&cluster);
    let room = cluster.mesh_room("no-agent");
    room.apply(&[objects::server("server")]);
    room.ready(&["server"]);
    let pod = room.get("pod server");
    start_agent(&cluster);
    assert!(is_plain_istio(&pod), "{pod:#}");
    assert_eq!(
        left_alone(&pod),
        Some("no-agent: no node agent is ready anywhere in the cluster")
    );
}

#[test]
fn pods_and_namespaces_opt_out_and_the_pod_wins() {
    let Some(cluster) = shared() else { return };
    let wish = |value| {
        let mut pod = objects::client("client");
        pod["metadata"]["labels"]["sidestep.dev/enabled"] = json!(value);
        pod
    };
    let open = cluster.mesh_room("open");
    let refused = open.admit(&wish("false")).pod;
    assert!(is_plain_istio(&refused), "{refused:#}");
    assert_eq!(reason(&refused), Some("opted-out"));

    let closed = cluster.room(
        "closed",
        &[
            ("istio-injection", "enabled"),
            ("sidestep.dev/enabled", "false"),
        ],
    );
    assert_eq!(
        reason(&closed.admit(&objects::client("client")).pod),
        Some("opted-out")
    );
    assert!(is_gated(&closed.admit(&wish("true")).pod));
}

#[test]
fn a_pod_without_a_sidecar_is_not_touched() {
    let Some(cluster) = shared() else { return };
    let room = cluster.room("bare", &[]);
    let pod = room.admit(&objects::client("client")).pod;
    let text = pod.to_string();
    assert!(!text.contains("sidestep.dev"), "{text}");
    assert!(pod["spec"]["initContainers"].is_null());
}

#[test]
fn a_service_account_or_image_of_the_pod_stays_as_it_was() {
    let Some(cluster) = shared() else { return };
    let room = cluster.mesh_room("same");
    let mut refusing = objects::client("client");
    refusing["metadata"]["labels"]["sidestep.dev/enabled"] = json!("false");
    let mut plain = room.admit(&refusing).pod;
    let mut gated = room.admit(&objects::client("client")).pod;
    assert!(is_gated(&gated) && is_plain_istio(&plain));
    // Beside the gate, the two differ in nothing of their specifications but random names.
    for pod in [&mut plain, &mut gated] {
        let inits = pod["spec"]["initContainers"]
            .as_array_mut()
            .expect("a sidecar");
        inits.retain(|init| init["name"] != "istio-init");
    }
    let names = |pod: &serde_json::Value| {
        let inits = pod["spec"]["initContainers"].as_array().expect("a sidecar");
        inits
            .iter()
            .map(|init| init["name"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&plain), names(&gated));
    for field in [
        "image",
        "command",
        "args",
        "ports",
        "resources",
        "securityContext",
    ] {
        assert_eq!(
            plain["spec"]["containers"][0][field], gated["spec"]["containers"][0][field],
            "{field}"
        );
        assert_eq!(
            plain["spec"]["initContainers"][0][field], gated["spec"]["initContainers"][0][field],
            "{field}"
        );
    }
    for field in [
        "serviceAccountName",
        "securityContext",
        "volumes",
        "restartPolicy",
    ] {
        let same = plain["spec"][field] == gated["spec"][field] || field == "volumes";
        assert!(same, "{field}");
    }
}
