//! A mesh whose pods istio-cni redirects, by its real plugin and its real repair controller.

use serde_json::{Value, json};
use sidestep_cluster::{
    Cluster,
    istio::IstioCni,
    room::{Room, objects, until},
    twins::Twins,
};
use sidestep_kit::needs;

use crate::world::{alone, is_gated, is_plain_istio};

const REVISION: &str = "cni";

#[needs(sidestep_cluster::programs)]
fn accelerated_pods_do_what_istio_cnis_pods_do_on_the_same_node() {
    let cluster = alone();
    for values in [&[][..], &["values.global.nativeNftables=true"]] {
        let _cni = cluster.istio_cni(REVISION, values);
        let all = [
            injected(objects::server("server")),
            objects::service("server"),
            injected(objects::client("client")),
        ];
        let twins = Twins::made(&cluster, "cni", &[], &["server", "client"], |room| {
            room.apply(&all);
        });
        for name in ["server", "client"] {
            let [ours, theirs] = twins.both().map(|room| room.get(&format!("pod {name}")));
            assert!(is_gated(&ours), "{ours:#}");
            assert_eq!(inits(&ours), ["istio-init", "istio-proxy"]);
            assert_eq!(inits(&theirs), ["istio-validation", "istio-proxy"]);
            assert_eq!(twins.ours.packet_rules(name), "");
            assert_ne!(twins.istios.packet_rules(name), "");
        }
        twins.warm("client", "http://server");
        let said = twins.run("client", "wget -qO- http://server/");
        assert!(said.contains("x-forwarded-client-cert"), "{said}");
        twins.logged_the_same(&[("client", 1), ("server", 1)]);
        // The control plane goes after its pods.
        for room in twins.both() {
            room.kubectl("delete pods --all --timeout=120s");
        }
    }
}

#[needs(sidestep_cluster::programs)]
fn istio_cni_comes_and_goes_while_pods_of_every_kind_run_and_start() {
    let cluster = alone();
    let cni = cluster.istio_cni(REVISION, &REPAIR);
    let room = cluster.room("cni", &[]);
    the_gate_stays_the_only_one(&cluster, &room);
    room.apply(&[
        injected(objects::server("server")),
        objects::service("server"),
        injected(objects::client("before")),
    ]);
    room.accelerated(&["server", "before"]);
    answered(&room, "before");
    // The plugin leaves pods with an istio-init alone, whether Sidestep does or not.
    let others = cluster.mesh_room("cni-others");
    others.apply(&[objects::client("gated"), left(objects::client("plain"))]);
    others.accelerated(&["gated"]);
    others.ready(&["plain"]);
    assert!(is_plain_istio(&others.get("pod plain")));

    cni.stop();
    answered(&room, "before");
    room.apply(&[
        injected(objects::client("without")),
        injected(left(objects::client("theirs"))),
    ]);
    room.accelerated(&["without"]);
    answered(&room, "without");
    is_found_broken_as_istio_cni_starts(&cni, &room, "theirs");
    for name in ["server", "before", "without"] {
        assert!(!is_broken(&room, name), "{name}");
        assert_eq!(room.packet_rules(name), "", "{name}");
    }
    for client in ["before", "without"] {
        answered(&room, client);
    }
    // The control plane goes after its pods.
    for room in [&room, &others] {
        room.kubectl("delete pods --all --timeout=120s");
    }
}

/// An injector that is asked again puts its `istio-validation` beside the gate.
fn the_gate_stays_the_only_one(cluster: &Cluster, room: &Room<'_>) {
    let name = "mutatingwebhookconfiguration istio-sidecar-injector-cni";
    let webhooks = cluster.get(name)["webhooks"].as_array().map_or(0, Vec::len);
    let again = |index| {
        let path = format!("/webhooks/{index}/reinvocationPolicy");
        json!({"op": "replace", "path": path, "value": "IfNeeded"})
    };
    let patch: Vec<_> = (0..webhooks).map(again).collect();
    cluster.kubectl(&format!(
        "patch {name} --type=json --patch {}",
        json!(patch)
    ));
    until(
        "the injector is asked again, and the gate is the only one",
        || {
            let pod = room.admit(&injected(objects::client("again"))).pod;
            is_gated(&pod) && inits(&pod) == ["istio-init", "istio-proxy"]
        },
    );
}

/// What the repair controller does with broken pods. To redirect them it would have to open the network namespace of this machine's
/// first process, which not every machine lets it.
const REPAIR: [&str; 2] = [
    "values.cni.repair.repairPods=false",
    "values.cni.repair.labelPods=true",
];

/// A pod of istio-cni's fails without istio-cni, and its repair controller finds that pod as soon as it is back.
fn is_found_broken_as_istio_cni_starts(cni: &IstioCni<'_>, room: &Room<'_>, pod: &str) {
    until("istio-validation fails without istio-cni", || {
        let pod = room.get(&format!("pod {pod}"));
        let container = &pod["status"]["initContainerStatuses"][0];
        let mut times = ["state", "lastState"].into_iter();
        times.any(|time| container[time]["terminated"]["exitCode"] == 126)
    });
    cni.start();
    until("the repair controller finds it", || is_broken(room, pod));
}

fn is_broken(room: &Room<'_>, pod: &str) -> bool {
    let pod = room.get(&format!("pod {pod}"));
    pod["metadata"]["labels"]["cni.istio.io/uninitialized"] == "true"
}

/// In the mesh of istio-cni.
fn injected(mut pod: Value) -> Value {
    let labels = &mut pod["metadata"]["labels"];
    labels["sidecar.istio.io/inject"] = json!("true");
    labels["istio.io/rev"] = json!(REVISION);
    pod
}

/// Opted out.
fn left(mut pod: Value) -> Value {
    pod["metadata"]["labels"]["sidestep.dev/enabled"] = json!("false");
    pod
}

fn inits(pod: &Value) -> Vec<&str> {
    let inits = pod["spec"]["initContainers"].as_array();
    let names = inits
        .into_iter()
        .flatten()
        .map(|init| init["name"].as_str());
    names.map(|name| name.expect("a name")).collect()
}

/// By the server, with mutual TLS.
fn answered(room: &Room<'_>, client: &str) {
    until("mutual TLS", || {
        let output = room.try_exec(client, "wget -qO- http://server/");
        String::from_utf8_lossy(&output.stdout).contains("x-forwarded-client-cert")
    });
}
