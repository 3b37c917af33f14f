//! The test's objects: pure.

use serde_json::{Value, json};
use sidestep_contract::keys;

use super::install::Install;
use super::plan::{Member, Side};
use super::ports::Port;

/// What every object of a test has for its label `app.kubernetes.io/name`.
pub(super) const NAME: &str = "sidestep-connectivity-test";

/// The label.
pub(super) const LABEL: &str = "app.kubernetes.io/name";

/// The container that serves, and in which calls are made.
pub(super) const CONTAINER: &str = "app";

/// The ports that Services have. The others are called by their pods' addresses.
const SERVED: [Port; 4] = [Port::Http, Port::Grpc, Port::Strict, Port::Echo];

/// The namespace, with the label by which Istio injects its pods.
pub(super) fn namespace(revision: Option<&str>) -> Value {
    let mut labels = json!({(LABEL): NAME});
    match revision {
        Some(revision) => labels["istio.io/rev"] = revision.into(),
        None => labels["istio-injection"] = "enabled".into(),
    }
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"generateName": format!("{NAME}-"), "labels": labels},
    })
}

/// The pods' account. A namespace's own one is not there yet when its first pod is made.
pub(super) fn account() -> Value {
    json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": NAME, "labels": {(LABEL): NAME}},
        "automountServiceAccountToken": false,
    })
}

/// A pod, which any standard of pod security admits.
pub(super) fn pod(member: &Member, install: &Install) -> Value {
    let excluded = Port::Excluded.number().to_string();
    let mut labels = json!({(LABEL): NAME, "app": member.name});
    match member.side {
        Some(Side::Sidestep) => labels[keys::ENABLED] = "true".into(),
        Some(Side::Istio) => labels[keys::ENABLED] = "false".into(),
        None => labels["sidecar.istio.io/inject"] = "false".into(),
    }
    let command = ["sidestep", "connectivity-test", "serve"];
    let secrets = install.pull_secrets.iter();
    let secrets: Vec<_> = secrets.map(|name| json!({"name": name})).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": member.name, "labels": labels, "annotations": {
            "traffic.sidecar.istio.io/excludeInboundPorts": excluded,
            "traffic.sidecar.istio.io/excludeOutboundPorts": excluded,
            // So that the pods fit on a node that is nearly full.
            "sidecar.istio.io/proxyCPU": "10m",
            "sidecar.istio.io/proxyMemory": "40Mi",
        }},
        "spec": {
            "serviceAccountName": NAME,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 1,
            "imagePullSecrets": secrets,
            "tolerations": install.tolerations,
            "affinity": on(&member.node),
            "containers": [{
                "name": CONTAINER,
                "image": install.image,
                "imagePullPolicy": install.pull_policy,
                "command": command,
                "ports": ports(),
                // An image without this command says so in the pod's status.
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": true, "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            }],
        },
    })
}

/// On this node, as a DaemonSet's pod: the scheduler still says what is in the way.
fn on(node: &str) -> Value {
    let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
    let term = json!({"matchFields": [field]});
    json!({"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]},
    }})
}

fn ports() -> Value {
    let ports = Port::ALL.map(|port| json!({"name": port.name(), "containerPort": port.number()}));
    json!(ports)
}

/// The Service of a server.
pub(super) fn service(name: &str) -> Value {
    let ports = SERVED.map(|port| json!({"name": port.name(), "port": port.number()}));
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "labels": {(LABEL): NAME}},
        "spec": {"selector": {"app": name}, "ports": ports},
    })
}

/// One port takes mutual TLS alone, and the others take plain text, too: whatever holds for the whole mesh, each case knows what to
/// expect.
pub(super) fn strict() -> Value {
    let strict = Port::Strict.number().to_string();
    json!({
        "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
        "metadata": {"name": NAME, "labels": {(LABEL): NAME}},
        "spec": {
            "selector": {"matchLabels": {(LABEL): NAME}},
            "mtls": {"mode": "PERMISSIVE"},
            "portLevelMtls": {(strict): {"mode": "STRICT"}},
        },
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};

    use super::*;
    use crate::connectivity::plan::Nodes;

    fn pods() -> Vec<Value> {
        let nodes = Nodes {
            near: "a".to_owned(),
            far: Ok("b".to_owned()),
        };
        let install = Install {
            image: "r/agent:1".to_owned(),
            pull_secrets: vec!["registry".to_owned()],
            ..Install::default()
        };
        let members = nodes.members().into_iter();
        members.map(|member| pod(&member, &install)).collect()
    }

    #[test]
    fn objects_are_what_the_api_server_takes() {
        for pod in pods() {
            let _pod: Pod = serde_json::from_value(pod).expect("a pod");
        }
        let _service: Service = serde_json::from_value(service("near")).expect("a Service");
        let _account: ServiceAccount = serde_json::from_value(account()).expect("an account");
        for (revision, label) in [
            (None, ("istio-injection", "enabled")),
            (Some("canary"), ("istio.io/rev", "canary")),
        ] {
            let namespace = namespace(revision);
            assert_eq!(namespace["metadata"]["labels"][label.0], label.1);
            let _namespace: Namespace = serde_json::from_value(namespace).expect("a namespace");
        }
    }

    /// As the standard `restricted` of Kubernetes 1.34 has it.
    #[test]
    fn pods_are_without_privileges_and_say_who_redirects_them() {
        for pod in pods() {
            let spec = &pod["spec"];
            let context = &spec["containers"][0]["securityContext"];
            assert_eq!(context["runAsNonRoot"], true);
            assert_ne!(context["runAsUser"], 0);
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}));
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(spec["automountServiceAccountToken"], false);
            assert!(spec["volumes"].is_null() && spec["hostNetwork"].is_null());
            assert_eq!(spec["imagePullSecrets"][0]["name"], "registry");
            let labels = &pod["metadata"]["labels"];
            let name = labels["app"].as_str().expect("a name");
            let (enabled, injected) = match name {
                "outside" => (Value::Null, json!("false")),
                name if name.ends_with("-istio") => (json!("false"), Value::Null),
                _ => (json!("true"), Value::Null),
            };
            assert_eq!(labels[keys::ENABLED], enabled, "{name}");
            assert_eq!(labels["sidecar.istio.io/inject"], injected, "{name}");
        }
    }

    #[test]
    fn a_port_that_takes_mutual_tls_alone_belongs_to_a_service() {
        let strict = strict();
        let ports = strict["spec"]["portLevelMtls"].as_object().expect("ports");
        let service = service("near");
        let served = service["spec"]["ports"].as_array().expect("ports");
        for port in ports.keys() {
            let number = json!(port.parse::<u16>().expect("a number"));
            // Istio ignores the port otherwise.
            let is_served = served.iter().any(|one| one["port"] == number);
            assert!(is_served, "{port}");
        }
    }
}
