//! The label is ours alone.

use serde_json::json;
use sidestep_cluster::room::objects;
use sidestep_kit::needs;

use crate::world::{is_gated, shared};

const LABEL: &str = "sidestep.dev/accelerated";

#[needs(sidestep_cluster::programs)]
fn a_label_without_a_gate_is_removed_with_a_warning() {
    let cluster = shared();
    let room = cluster.room("forged", &[]);
    let mut pod = objects::client("client");
    pod["metadata"]["labels"][LABEL] = json!("true");
    let admitted = room.admit(&pod);
    assert!(
        admitted.pod["metadata"]["labels"][LABEL].is_null(),
        "{:#}",
        admitted.pod
    );
    assert!(
        admitted
            .said
            .contains("Warning: label sidestep.dev/accelerated removed"),
        "{}",
        admitted.said
    );
}

#[needs(sidestep_cluster::programs)]
fn a_pod_that_lives_gets_no_label() {
    let cluster = shared();
    let room = cluster.room("later", &[]);
    room.apply(&[objects::client("client")]);
    room.ready(&["client"]);
    refuses(&room, &format!("label pod client {LABEL}=true"));
    let patch = format!(r#"{{"metadata":{{"labels":{{"{LABEL}":"true"}}}}}}"#);
    refuses(
        &room,
        &format!("patch pod client --subresource=status -p {patch}"),
    );
    let labels = room.get("pod client")["metadata"]["labels"].clone();
    assert!(labels[LABEL].is_null(), "{labels}");
}

#[needs(sidestep_cluster::programs)]
fn a_gated_pod_keeps_its_label_and_its_policy() {
    let cluster = shared();
    let room = cluster.mesh_room("kept");
    room.apply(&[objects::client("client")]);
    room.ready(&["client"]);
    refuses(&room, &format!("label pod client {LABEL}-"));
    refuses(
        &room,
        &format!("label pod client --overwrite {LABEL}=false"),
    );
    refuses(
        &room,
        "annotate pod client --overwrite sidestep.dev/policy=none",
    );
    let patch = format!(r#"{{"metadata":{{"labels":{{"{LABEL}":null}}}}}}"#);
    refuses(
        &room,
        &format!("patch pod client --subresource=status -p {patch}"),
    );
    assert!(is_gated(&room.get("pod client")));
    // Other labels are nobody's business.
    room.kubectl("label pod client version=v2");
    assert_eq!(
        room.get("pod client")["metadata"]["labels"]["version"],
        "v2"
    );
}

/// The API server itself refuses it, and says why.
fn refuses(room: &sidestep_cluster::room::Room<'_>, words: &str) {
    let output = room.try_kubectl(words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{words} was not refused");
    assert!(
        said.contains("what Sidestep decided about a pod stays") && said.contains("sidestep-label"),
        "{words}: {said}"
    );
}
