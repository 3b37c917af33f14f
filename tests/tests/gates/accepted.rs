//! Kubernetes takes what `sidestep mutate` makes.

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::{Value, json};
use sidestep_contract::istio_init;
use sidestep_kit::{apiserver::ApiServer, needs};

use crate::mutated::{before, mutated, names, pods_in};

/// A server with the fixtures' namespaces and runtime classes, and a namespace where PodSecurity is restricted.
fn server() -> ApiServer {
    let server = ApiServer::start();
    for namespace in ["demo", "quiet", "restricted"] {
        server.must(&format!("create namespace {namespace}"));
    }
    // The API server knows what a class costs, and wants pods to say the same.
    let isolated = json!({"podFixed": {"cpu": "250m", "memory": "160Mi"}});
    for (name, overhead) in [("isolated", isolated), ("performance", Value::Null)] {
        let class = json!({
            "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name},
            "handler": name, "overhead": overhead});
        server.feed("create", &class).expect("a runtime class");
    }
    server.must("label namespace restricted pod-security.kubernetes.io/enforce=restricted");
    server
}

/// What the server would store, or why it refuses.
fn dry_run(server: &ApiServer, objects: &[Value]) -> Result<Vec<Value>, String> {
    let mut objects = objects.to_vec();
    // As the admission plugin would that this server has not.
    for pod in objects.iter_mut().filter(|it| it["kind"] == "Pod") {
        let account = &mut pod["spec"]["serviceAccountName"];
        if account.is_null() {
            *account = json!("default");
        }
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let text = server.feed("create --dry-run=server -o json", &list)?;
    let stored = serde_json::Deserializer::from_str(&text).into_iter();
    Ok(stored.map(|it| it.expect("kubectl prints JSON")).collect())
}

/// Lists within the List are not opened by `kubectl create`.
fn opened(objects: Vec<Value>) -> Vec<Value> {
    let open = |object: Value| match object["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![object],
    };
    objects.into_iter().flat_map(open).collect()
}

fn gates(objects: &[Value]) -> usize {
    let pods = objects.iter().flat_map(pods_in);
    let pods = pods.map(|pod| Pod::deserialize(&pod).expect("a pod"));
    pods.filter(|pod| istio_init(pod).is_ok_and(|init| init.is_gate))
        .count()
}

#[needs(apiserver)]
fn a_real_api_server_accepts_every_object_that_mutate_makes_and_keeps_its_gate() {
    let server = server();
    let injected = opened(names().iter().flat_map(|name| before(name)).collect());
    let accepted = dry_run(&server, &injected).expect("what Istio makes is accepted");
    assert_eq!(accepted.len(), injected.len());

    let sent = opened(names().iter().flat_map(|name| mutated(name, &[])).collect());
    let stored = dry_run(&server, &sent).expect("what mutate makes is accepted");
    assert_eq!(stored.len(), injected.len());
    assert_eq!(gates(&accepted), 0, "none before");
    assert!(gates(&sent) >= 60, "only {} gates", gates(&sent));
    assert_eq!(gates(&stored), gates(&sent), "gates as the server has them");
}

#[needs(apiserver)]
fn a_gated_pod_may_be_where_pod_security_is_restricted_as_istios_may_not() {
    let server = server();
    let in_restricted = |mut objects: Vec<Value>| {
        objects[0]["metadata"]["namespace"] = json!("restricted");
        dry_run(&server, &objects)
    };
    let refusal = in_restricted(before("security-context")).expect_err("istio-init is privileged");
    assert!(refusal.contains("violates PodSecurity"), "{refusal}");
    assert!(refusal.contains("istio-init"), "{refusal}");
    let stored = in_restricted(mutated("security-context", &[])).expect("a gate is not");
    assert_eq!(gates(&stored), 1);
}
