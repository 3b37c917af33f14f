//! What the webhook makes of new pods.

use serde_json::json;
use sidestep_cluster::room::{objects, until};
use sidestep_kit::needs;

use crate::world::{
    alone, is_gated, is_plain_istio, left_alone, reason, restored, shared, without_agent,
};

#[needs(sidestep_cluster::programs)]
fn without_an_agent_pods_stay_with_istio_and_say_so() {
    let cluster = alone();
    without_agent(&cluster);
    let room = cluster.mesh_room("no-agent");
    until("the webhook sees that there is no agent", || {
        left_alone(&room.admit(&objects::client("probe")).pod).is_some()
    });
    room.apply(&[objects::server("server")]);
    room.ready(&["server"]);
    let pod = room.get("pod server");
    restored(&cluster);
    assert!(is_plain_istio(&pod), "{pod:#}");
    assert_eq!(
        left_alone(&pod),
        Some("no-agent: no node agent is ready anywhere in the cluster")
    );
}

#[needs(sidestep_cluster::programs)]
fn pods_and_namespaces_opt_out_and_the_pod_wins() {
    let cluster = shared();
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

#[needs(sidestep_cluster::programs)]
fn a_pod_without_a_sidecar_is_not_touched() {
    let cluster = shared();
    let room = cluster.room("bare", &[]);
    let pod = room.admit(&objects::client("client")).pod;
    let text = pod.to_string();
    assert!(!text.contains("sidestep.dev"), "{text}");
    assert!(pod["spec"]["initContainers"].is_null());
}

#[needs(sidestep_cluster::programs)]
fn a_service_account_or_image_of_the_pod_stays_as_it_was() {
    let cluster = shared();
    let room = cluster.mesh_room("same");
    let mut refusing = objects::client("client");
    refusing["metadata"]["labels"]["sidestep.dev/enabled"] = json!("false");
    let mut plain = room.admit(&refusing).pod;
    let mut gated = room.admit(&objects::client("client")).pod;
    assert!(is_gated(&gated) && is_plain_istio(&plain));
    // Beside the gate and where it may run, the two differ in nothing but a random name.
    for pod in [&mut plain, &mut gated] {
        *pod = with_one_token_name(pod);
        let inits = pod["spec"]["initContainers"].as_array_mut();
        let init = inits.expect("a sidecar").iter_mut();
        let mut init = init.filter(|init| init["name"] == "istio-init");
        *init.next().expect("istio-init") = json!("the gate or what it was made of");
    }
    let affinity = gated["spec"]["affinity"].take();
    assert!(
        affinity.to_string().contains("sidestep.dev/unsupported"),
        "{affinity}"
    );
    assert_eq!(plain["spec"]["affinity"].take(), json!(null));
    assert_eq!(plain["spec"], gated["spec"]);
}

/// The volume with the service account's token has another name in every pod.
fn with_one_token_name(pod: &serde_json::Value) -> serde_json::Value {
    const PREFIX: &str = "kube-api-access-";
    let text = pod.to_string();
    let (_, name) = text.split_once(PREFIX).expect("a token");
    let name = name.split('"').next().expect("the rest of its name");
    let text = text.replace(&format!("{PREFIX}{name}"), PREFIX);
    serde_json::from_str(&text).expect("it was JSON")
}
