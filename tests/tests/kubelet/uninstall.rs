//! `sidestep uninstall` against a real API server.

use std::{sync::Arc, time::Instant};

use serde_json::{Value, json};
use sidestep_kit::{
    apiserver::ApiServer,
    desk::sidestep,
    kubelet::{Driver, KubeNode, PATIENCE, pod},
    needs,
    process::eventually,
};

/// What it exits with, and says.
fn uninstall(server: &ApiServer, words: &[&str]) -> (Option<i32>, String) {
    let said = sidestep(server, &format!("uninstall {}", words.join(" ")));
    (said.code, said.out + &said.error)
}

/// A gated pod that a controller made.
fn owned(name: &str, node: &KubeNode) -> Value {
    let mut manifest = pod(name, &node.name, "");
    manifest["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "controller": true,
        "uid": "0f3a6a0e-1c2b-4d5e-8f90-abcdef012345",
    }]);
    manifest
}

fn set_phase(server: &ApiServer, node: &KubeNode, pod: &str, phase: &str) {
    let status = format!("{{\"status\":{{\"phase\":\"{phase}\"}}}}");
    let words = [
        "patch",
        "pod",
        pod,
        "-n",
        &node.name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &status,
    ];
    server.kubectl(words).expect("a status may be patched");
}

fn is_told_to_end(server: &ApiServer, node: &KubeNode, pod: &str) -> bool {
    let pod = server.get(&format!("pod {pod} -n {}", node.name));
    pod["metadata"]["deletionTimestamp"].is_string()
}

#[needs(apiserver)]
fn uninstalling_is_refused_while_pods_depend_on_sidestep_and_replaces_them_when_told_to() {
    let server = Arc::new(ApiServer::start());
    let node = KubeNode::on(Arc::clone(&server), Driver::Cgroupfs);
    node.create_as("owned", &owned("owned", &node));
    node.create("alone", "");
    let (code, text) = uninstall(&server, &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("/owned") && text.contains("--roll-back"),
        "{text}"
    );

    let (code, text) = uninstall(&server, &["--roll-back", "--timeout=1"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(
        text.contains("/owned (ReplicaSet/web-1 makes another)"),
        "{text}"
    );
    assert!(text.contains("/alone: it has no controller"), "{text}");
    // Nobody is there to end it, but it was told to.
    let owned = server.get(&format!("pod owned -n {}", node.name));
    assert!(
        owned["metadata"]["deletionTimestamp"].is_string(),
        "{owned}"
    );
    for name in ["owned", "alone"] {
        server.must(&format!(
            "delete pod {name} -n {} --force --grace-period=0",
            node.name
        ));
    }
    let (code, text) = uninstall(&server, &["--roll-back"]);
    assert_eq!(code, Some(0), "{text}");
}

/// An eviction that the API server refuses with an error of its own, as with two disruption budgets: the others go on.
#[needs(apiserver)]
fn a_pod_that_cannot_be_evicted_is_named_and_holds_up_no_other() {
    let server = Arc::new(ApiServer::start());
    let node = KubeNode::on(Arc::clone(&server), Driver::Cgroupfs);
    for budget in ["one", "two"] {
        let budget = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": budget},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}},
        });
        let created = server.feed(&format!("create -n {}", node.name), &budget);
        created.expect("a disruption budget");
    }
    let mut guarded = owned("a-guarded", &node);
    guarded["metadata"]["labels"]["app"] = json!("guarded");
    node.create_as("a-guarded", &guarded);
    for name in ["b-free", "c-ended"] {
        node.create_as(name, &owned(name, &node));
    }
    for (name, phase) in [
        ("a-guarded", "Running"),
        ("b-free", "Running"),
        ("c-ended", "Succeeded"),
    ] {
        set_phase(&server, &node, name, phase);
    }
    let (code, text) = uninstall(&server, &["--roll-back", "--timeout=3"]);
    assert_eq!(code, Some(2), "{text}");
    let complaint = "/a-guarded: This pod has more than one PodDisruptionBudget";
    assert!(text.contains(complaint), "{text}");
    assert!(!is_told_to_end(&server, &node, "a-guarded"), "{text}");
    assert!(is_told_to_end(&server, &node, "b-free"), "{text}");
    // It depends on nothing any more.
    assert!(!text.contains("c-ended"), "{text}");
    assert!(!is_told_to_end(&server, &node, "c-ended"), "{text}");
}

/// API servers ask the webhook for a moment after its removal: what they admit then is found before anything is promised.
#[needs(apiserver)]
fn a_pod_that_was_admitted_at_the_last_moment_is_found() {
    let server = Arc::new(ApiServer::start());
    let node = KubeNode::on(Arc::clone(&server), Driver::Cgroupfs);
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "sidestep-webhook"}, "webhooks": [],
    });
    server.feed("create", &webhook).expect("a configuration");
    let begun = Instant::now();
    let (code, text) = std::thread::scope(|scope| {
        let running = scope.spawn(|| uninstall(&server, &[]));
        // It looks for pods first.
        let is_removed = || {
            let get = ["get", "mutatingwebhookconfiguration", "sidestep-webhook"];
            server.kubectl(get).is_err()
        };
        assert!(eventually(PATIENCE, is_removed), "the webhook stays");
        node.create("late", "");
        running.join().expect("no panic")
    });
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("/late"), "{text}");
    assert!(!is_told_to_end(&server, &node, "late"), "{text}");
    server.must(&format!(
        "delete pod late -n {} --force --grace-period=0",
        node.name
    ));
    let (code, text) = uninstall(&server, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(begun.elapsed().as_secs() > 10, "nothing was waited for");
}
