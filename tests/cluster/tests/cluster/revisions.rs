//! More than one control plane, and Istio installed again.

use serde_json::{Value, json};
use sidestep_cluster::{
    istio,
    room::{objects, until},
    twins::Twins,
};
use sidestep_kit::needs;

use crate::world::{alone, is_gated, shared};

#[needs(sidestep_cluster::programs)]
fn pods_of_two_revisions_talk_to_each_other_as_with_iptables() {
    let cluster = shared();
    let _second = cluster.revision("second", &[]);
    let of = |revision: &str, mut pod: Value| {
        let labels = &mut pod["metadata"]["labels"];
        labels["sidecar.istio.io/inject"] = json!("true");
        labels["istio.io/rev"] = json!(revision);
        pod
    };
    let all = [
        of("second", objects::server("server")),
        objects::service("server"),
        of("default", objects::client("client")),
        of("default", objects::server("back")),
        objects::service("back"),
    ];
    let pods = ["server", "client", "back"];
    let twins = Twins::made(&cluster, "revisions", &[], &pods, |room| {
        room.apply(&all);
    });
    for (pod, revision) in [("server", "second"), ("client", "default")] {
        let pod = twins.ours.get(&format!("pod {pod}"));
        assert!(is_gated(&pod), "{pod:#}");
        assert_eq!(pod["metadata"]["annotations"]["istio.io/rev"], revision);
    }
    for (from, to) in [("client", "server"), ("server", "back")] {
        twins.warm(from, &format!("http://{to}"));
        let said = twins.run(from, &format!("wget -qO- http://{to}/"));
        assert!(said.contains("x-forwarded-client-cert"), "{said}");
    }
    twins.logged_the_same(&[("client", 1), ("server", 2), ("back", 1)]);
    // The control plane goes after its pods.
    for room in twins.both() {
        room.kubectl("delete pods --all --timeout=120s");
    }
}

#[needs(sidestep_cluster::programs)]
fn istio_installed_again_changes_nothing() {
    let cluster = alone();
    let name = "mutatingwebhookconfiguration sidestep-webhook";
    let before = cluster.get(name);
    let room = cluster.mesh_room("again-istio");
    room.apply(&[objects::client("before")]);
    room.accelerated(&["before"]);
    istio::install(cluster.admin(), cluster.place()).unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(cluster.get(name), before);
    room.apply(&[objects::server("server"), objects::service("server")]);
    room.accelerated(&["before", "server"]);
    let pod = room.get("pod server");
    assert!(is_gated(&pod), "{pod:#}");
    until(
        "mutual TLS between a pod of before and one of after",
        || {
            let output = room.try_exec("before", "wget -qO- http://server/");
            String::from_utf8_lossy(&output.stdout).contains("x-forwarded-client-cert")
        },
    );
}
