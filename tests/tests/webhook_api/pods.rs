//! What a real API server and the webhook together make of pods, and what they make of them once it is uninstalled.

use serde_json::{Value, json};
use sidestep_kit::{apiserver::ApiServer, chart, needs};

use crate::{
    cluster::{ADDRESSES, injected, installed, is_gated, mutated, route},
    replica::Replica,
    until,
};

/// What the API server would make of a pod, and what it says to whoever creates it.
fn created(server: &ApiServer, change: impl Fn(&mut Value)) -> Value {
    let mut pod = injected("pod");
    change(&mut pod);
    let text = server.feed("create --dry-run=server -o json", &pod);
    serde_json::from_str(&text.expect("it is allowed")).expect("kubectl prints JSON")
}

fn reason(pod: &Value) -> &str {
    assert!(!is_gated(pod), "{pod:#}");
    let said = pod["metadata"]["annotations"]["sidestep.dev/left-alone"].as_str();
    said.unwrap_or_default()
        .split(':')
        .next()
        .unwrap_or_default()
}

#[needs(apiserver, part("helm"))]
fn pods_are_gated_or_left_with_the_reason_until_the_webhook_is_uninstalled() {
    let server = installed(&[]);
    for (name, overhead) in [
        ("isolated", json!({"podFixed": {"memory": "160Mi"}})),
        ("performance", Value::Null),
    ] {
        let class = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name},
            "handler": name, "overhead": overhead});
        server.feed("create", &class).expect("a runtime class");
    }
    let quiet = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "quiet",
        "labels": {"sidestep.dev/enabled": "false"}}});
    server.feed("create", &quiet).expect("a namespace");
    let replica = Replica::start(&server, "one", ADDRESSES[0], &[]);
    replica.ready();
    route(&server, &ADDRESSES[..1]);
    until("a pod is gated", || {
        mutated(&server, "probe").is_ok_and(|pod| is_gated(&pod))
    });

    // Its namespace is as new as the pod.
    let in_quiet = created(&server, |pod| pod["metadata"]["namespace"] = "quiet".into());
    assert_eq!(reason(&in_quiet), "opted-out");
    let tproxy = created(&server, |pod| {
        let args = pod["spec"]["initContainers"][0]["args"]
            .as_array_mut()
            .expect("arguments");
        args.extend(["-m", "TPROXY"].map(Value::from));
    });
    assert_eq!(reason(&tproxy), "tproxy");
    // The API server writes the overhead before it asks.
    let isolated = created(&server, |pod| {
        pod["spec"]["runtimeClassName"] = "isolated".into();
    });
    assert_eq!(isolated["spec"]["overhead"]["memory"], "160Mi");
    assert_eq!(reason(&isolated), "sandboxed-runtime");
    let unknown = created(&server, |pod| {
        pod["spec"]["runtimeClassName"] = "performance".into();
    });
    assert_eq!(reason(&unknown), "unknown-runtime");
    let known = created(&server, |pod| {
        pod["spec"]["runtimeClassName"] = "performance".into();
        pod["metadata"]["annotations"]["sidestep.dev/enabled"] = "true".into();
    });
    assert!(is_gated(&known));
    let forged = created(&server, |pod| {
        pod["metadata"]["labels"]["sidestep.dev/accelerated"] = "true".into();
        let args = pod["spec"]["initContainers"][0]["args"]
            .as_array_mut()
            .expect("arguments");
        args.extend(["-m", "TPROXY"].map(Value::from));
    });
    assert_eq!(reason(&forged), "tproxy");
    assert_eq!(
        forged["metadata"]["labels"]["sidestep.dev/accelerated"],
        Value::Null
    );
    let metrics = replica.ask("/metrics");
    for reason in [
        "opted-out",
        "tproxy",
        "sandboxed-runtime",
        "unknown-runtime",
    ] {
        let line =
            format!("sidestep_webhook_reviews_total{{path=\"mutate\",decision=\"{reason}\"}}");
        assert!(metrics.contains(&line), "{metrics}");
    }

    let list = json!({"apiVersion": "v1", "kind": "List", "items": chart::objects(&[])});
    server
        .feed("delete --wait=false", &list)
        .expect("it is uninstalled");
    until("a pod is plain Istio's", || {
        mutated(&server, "probe").is_ok_and(|pod| {
            !pod.to_string().contains("sidestep.dev/") && pod["spec"] != Value::Null
        })
    });
    replica.stop();
}
