//! Kubernetes' own check of what pods may do.

use serde_json::{Value, json};
use sidestep_kit::{
    chart::{object, objects},
    needs,
};

use crate::installed;

/// The pod that a workload's template makes.
fn pod_of(workload: &Value) -> Value {
    let template = &workload["spec"]["template"];
    let mut metadata = template["metadata"].clone();
    metadata["name"] = "pod".into();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]})
}

fn in_namespace_that_enforces(level: &str, pod: &Value) -> Result<String, String> {
    let server = installed();
    let namespace = format!("enforces-{level}");
    let labels = json!({"pod-security.kubernetes.io/enforce": level});
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}});
    server
        .feed("apply", &object)
        .expect("a namespace can be made");
    server.feed(&format!("create --dry-run=server -n {namespace}"), pod)
}

#[needs(apiserver, part("helm"))]
fn the_webhooks_pods_satisfy_the_restricted_standard() {
    let _server = installed();
    let provided: &[&str] = &[
        "certificates.mode=provided",
        "certificates.provided.secretName=tls",
        "certificates.provided.certManager=a/b",
    ];
    for settings in [&[], provided] {
        let objects = objects(settings);
        let webhook = object(&objects, "Deployment", "sidestep-webhook");
        let outcome = in_namespace_that_enforces("restricted", &pod_of(webhook));
        assert!(outcome.is_ok(), "{settings:?}: {outcome:?}");
    }
}

#[needs(apiserver, part("helm"))]
fn the_agents_pods_need_a_privileged_namespace_but_are_not_privileged() {
    let _server = installed();
    let objects = objects(&[]);
    let pod = pod_of(object(&objects, "DaemonSet", "sidestep-agent"));
    let refused = in_namespace_that_enforces("baseline", &pod).expect_err("it uses the node");
    for reason in ["hostPID", "non-default capabilities", "hostPath volumes"] {
        assert!(refused.contains(reason), "{reason} is not in: {refused}");
    }
    assert!(!refused.contains("privileged (container"), "{refused}");
    assert!(
        !refused.contains("host namespaces (hostNetwork"),
        "{refused}"
    );
    in_namespace_that_enforces("privileged", &pod).expect("a namespace as in install.yaml");
}
