//! Pods and services of tests.

use serde_json::{Value, json};

use super::images::APP;

/// The port that [`server`] listens on.
pub const PORT: u16 = 8080;

/// A pod that answers HTTP requests with what it saw, on [`PORT`].
pub fn server(name: &str) -> Value {
    pod(
        name,
        &json!([
            "sidestep-app",
            "serve",
            "--pod",
            name,
            "--listen",
            format!("0.0.0.0:{PORT}")
        ]),
    )
}

/// A pod to run programs in.
pub fn client(name: &str) -> Value {
    pod(name, &json!(["sleep", "1000000"]))
}

/// A pod with one container, `app`, that runs this command.
pub fn pod(name: &str, command: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            // Test pods have nothing to say when they are told to end.
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "app", "image": APP, "imagePullPolicy": "Never", "command": command}],
        },
    })
}

/// Lets the sidecars of a namespace take mutual TLS alone.
pub fn strict() -> Value {
    json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "strict"},
        "spec": {"mtls": {"mode": "STRICT"}},
    })
}

/// The service of a [`server`], on port 80.
pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": PORT}],
        },
    })
}

/// Lets the sidecars of a namespace log every request and connection, as JSON.
pub fn access_log() -> Value {
    json!({
        "apiVersion": "telemetry.istio.io/v1",
        "kind": "Telemetry",
        "metadata": {"name": "access-log"},
        "spec": {"accessLogging": [{"providers": [{"name": "envoy"}]}]},
    })
}

/// A controller (`Deployment`, `StatefulSet` …) of so many pods, each made like this one.
pub fn controller(kind: &str, name: &str, replicas: u32, pod: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": pod["metadata"]["labels"]},
            "template": {"metadata": pod["metadata"], "spec": pod["spec"]},
        },
    })
}

/// A Job that is tried once, whose pod runs this command.
pub fn job(name: &str, command: &Value) -> Value {
    let mut pod = pod(name, command);
    pod["spec"]["restartPolicy"] = json!("Never");
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"metadata": pod["metadata"], "spec": pod["spec"]}},
    })
}
