//! Pods to create.

use std::process::Command;

use serde_json::{Value, json};
use sidestep_kit::{binary, chart::documents, parts};

use crate::fixture;

/// A pod with one container.
pub(crate) fn plain(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "app", "image": "app", "resources": {"requests": {"cpu": "1m"}}}]},
    })
}

/// A pod that brings our label, and no gate.
pub(crate) fn forged(name: &str) -> Value {
    let mut pod = plain(name);
    pod["metadata"]["labels"] = json!({"sidestep.dev/accelerated": "true"});
    pod
}

/// A pod as Istio's injector leaves it.
pub(crate) fn injected(name: &str) -> Value {
    let [pod] = documents(&fixture("server/pod.yaml"))
        .try_into()
        .expect("one pod");
    named(pod, name)
}

/// The same, as the webhook makes it.
pub(crate) fn gated(name: &str) -> Value {
    let file = parts::fixtures().join("server/pod.yaml");
    let mut mutate = Command::new(binary("sidestep"));
    let text = parts::finish(mutate.arg("mutate").arg("-f").arg(file)).expect("an injected pod");
    let [pod] = documents(&text).try_into().expect("one pod");
    named(pod, name)
}

fn named(mut pod: Value, name: &str) -> Value {
    pod["metadata"]["name"] = name.into();
    pod["metadata"]["namespace"] = "default".into();
    // Where pods are made from templates, the API server writes it.
    pod["spec"]["serviceAccountName"] = "default".into();
    pod
}
