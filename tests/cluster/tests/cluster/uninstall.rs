//! Sidestep leaves a cluster.

use std::thread;

use serde_json::Value;
use sidestep_cluster::{
    Cluster,
    agent::said,
    room::{Room, objects, until},
    sidestep,
};
use sidestep_kit::{needs, shortcut_maps};

use crate::world::{alone, is_plain_istio, restored, with_values};

/// What a release has outside of its own namespace.
const KINDS: &str = "mutatingwebhookconfiguration,validatingadmissionpolicy,validatingadmissionpolicybinding,clusterrole,clusterrolebinding";

#[needs(sidestep_cluster::programs)]
fn helm_uninstall_leaves_running_pods_captured_and_new_ones_to_istio() {
    let cluster = alone();
    let room = cluster.mesh_room("helm");
    room.apply(&[
        objects::server("server"),
        objects::service("server"),
        objects::client("client"),
    ]);
    room.accelerated(&["server", "client"]);
    let armed = cluster.pinned_pods();
    let forced = sidestep::uninstall(&cluster, &["--no-hooks"]);
    forced.unwrap_or_else(|error| panic!("{error:#}"));
    until("the agent is gone", || cluster.agents().is_empty());
    let left = cluster.kubectl(&format!("get {KINDS} -o name"));

    room.apply(&[objects::client("later")]);
    room.ready(&["later"]);
    let later = room.get("pod later");
    let answers = ["client", "later"].map(|pod| calls(&room, pod));
    let still = cluster.pinned_pods();
    restored(&cluster);

    let ours: Vec<_> = left.lines().filter(|it| it.contains("sidestep")).collect();
    assert!(ours.is_empty(), "{ours:?}");
    assert!(is_plain_istio(&later), "{later:#}");
    assert!(!later.to_string().contains("sidestep.dev"), "{later:#}");
    for answer in answers {
        assert!(answer.contains("x-forwarded-client-cert"), "{answer}");
    }
    assert!(still.is_superset(&armed), "{armed:?}, then {still:?}");
    // The next agent takes them over.
    room.accelerated(&["server", "client"]);
}

#[needs(sidestep_cluster::programs)]
fn rolled_back_pods_are_plain_istios_and_nothing_stays_in_the_kernel() {
    let cluster = alone();
    let room = cluster.mesh_room("back");
    let web = objects::controller("Deployment", "server", 1, &objects::server("server"));
    room.apply(&[web, objects::service("server"), objects::client("client")]);
    room.kubectl("rollout status deployment/server --timeout=120s");
    room.accelerated(&["client"]);

    let refused_at_the_desk = said(&cluster.sidestep("uninstall"));
    let refused = refused(&cluster);
    // Until then Helm takes no other values.
    sidestep::roll_back(&cluster).unwrap_or_else(|error| panic!("{error:#}"));
    with_values(&cluster, &["uninstall.acceleratedPods=roll-back"]);
    let half_way = self::refused(&cluster);
    room.kubectl("rollout status deployment/server --timeout=120s");
    let server = the_pod(&room, "app=server");
    // Nobody makes this one again.
    room.kubectl("delete pod client --now");
    let uninstalled = sidestep::uninstall(&cluster, &[]);
    uninstalled.unwrap_or_else(|error| panic!("{error:#}"));
    until("nothing is left on the node", || {
        let shortcuts = shortcut_maps::folders(&cluster.pins());
        !cluster.pins().exists() && shortcuts.is_empty() && cluster.agents().is_empty()
    });
    let left = cluster.kubectl(&format!("get {KINDS} -o name"));
    let plain = {
        room.apply(&[objects::client("client")]);
        room.ready(&["client"]);
        calls(&room, "client")
    };
    restored(&cluster);

    for said in [refused_at_the_desk, refused] {
        assert!(said.contains("--roll-back"), "{said}");
        assert!(said.contains(&format!("{}/client", room.name())), "{said}");
    }
    assert!(
        half_way.contains("client: it has no controller"),
        "{half_way}"
    );
    assert!(!left.contains("sidestep"), "{left}");
    assert!(is_plain_istio(&server), "{server:#}");
    assert!(plain.contains("x-forwarded-client-cert"), "{plain}");
}

/// What Helm says that does not uninstall.
fn refused(cluster: &Cluster) -> String {
    match sidestep::uninstall(cluster, &[]) {
        Ok(said) => panic!("it was uninstalled: {said}"),
        Err(error) => format!("{error:#}"),
    }
}

#[needs(sidestep_cluster::programs)]
fn a_roll_back_ends_where_somebody_brings_the_registration_back_and_names_who() {
    let cluster = alone();
    let name = "mutatingwebhookconfiguration sidestep-webhook";
    let mut registration = cluster.get(name);
    let metadata = registration["metadata"].as_object_mut();
    metadata
        .expect("metadata")
        .retain(|key, _| ["name", "labels"].contains(&key.as_str()));
    let rolled_back = thread::scope(|scope| {
        let rolled_back = scope.spawn(|| cluster.sidestep("uninstall --roll-back"));
        until("it is removed", || {
            let there = ["get", "mutatingwebhookconfiguration", "sidestep-webhook"];
            !cluster.admin().succeeds(&there)
        });
        let again = [
            "apply",
            "--server-side",
            "--field-manager=argocd-controller",
            "-f",
            "-",
        ];
        let made = cluster.admin().run(&again, &registration.to_string());
        let made = made.unwrap_or_else(|error| panic!("{error:#}"));
        assert!(made.status.success(), "{}", said(&made));
        rolled_back.join().expect("no panic")
    });
    // Helm does not touch what others made.
    cluster.kubectl(&format!("delete {name}"));
    restored(&cluster);
    assert_eq!(rolled_back.status.code(), Some(1));
    let said = said(&rolled_back);
    assert!(said.contains("made by argocd-controller"), "{said}");
    assert!(said.contains("enrolment: none"), "{said}");
}

/// What the server saw of a pod's call.
fn calls(room: &Room<'_>, pod: &str) -> String {
    let mut answer = String::new();
    until(&format!("{pod} reaches the server"), || {
        let output = room.try_exec(pod, "wget -qO- http://server/");
        answer = said(&output);
        output.status.success()
    });
    answer
}

/// The one pod with this label that does not end.
fn the_pod(room: &Room<'_>, label: &str) -> Value {
    let pods = room.get(&format!("pods -l {label}"));
    let mut pods = pods["items"].as_array().expect("a list").clone();
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    assert_eq!(pods.len(), 1, "{pods:#?}");
    pods.remove(0)
}
