//! Pods that are tried and not made (`dryRun`): the whole of admission sees them, and nothing is stored.

use std::time::{Duration, Instant};

use http::Request;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use sidestep_contract::keys;
use tokio::time::timeout;

use super::installed::WEBHOOK;
use super::{Scope, known};
use crate::check::facts::{Known, Probe, Trial};
use crate::check::finding::Stage;
use crate::cluster::{self, Seen};

/// How long the API server may take to pass a request on. It tries for longer where packets are lost.
const PATIENCE: Duration = Duration::from_secs(5);

/// A pod that no standard of pod security refuses.
fn plain() -> Value {
    let context = json!({
        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": true,
        "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
    });
    let resources = json!({"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "sidestep-check-"},
        "spec": {
            "containers": [{"name": "app", "image": "sidestep.invalid/check", "securityContext": context, "resources": resources}],
            "automountServiceAccountToken": false,
        },
    })
}

/// The same as if Istio had injected it, and with a word that no webhook may accelerate it: whatever the webhook is set to, it says
/// so on the pod.
fn injected() -> Value {
    let mut pod = plain();
    let mut init = pod["spec"]["containers"][0].clone();
    init["name"] = keys::ISTIO_INIT.into();
    init["args"] = json!([keys::ISTIO_IPTABLES]);
    pod["spec"]["initContainers"] = json!([init]);
    pod["metadata"]["annotations"] = json!({(keys::ENABLED): "false"});
    pod["metadata"]["labels"] = json!({"sidecar.istio.io/inject": "false"});
    pod
}

async fn admit(client: &Client, namespace: &str, pod: Value) -> Known<Pod> {
    let pod: Pod = serde_json::from_value(pod).map_err(|error| error.to_string())?;
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let trial = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    known(api.create(&trial, &pod).await)
}

/// Whether the webhook answers.
pub(super) async fn probe(client: &Client, scope: &Scope) -> Probe {
    let namespace = &scope.probe;
    let begun = Instant::now();
    let answered = match scope.stage {
        Stage::Before => Ok(false),
        Stage::After => admit(client, namespace, injected()).await.map(|pod| {
            let annotations = pod.annotations();
            annotations.contains_key(keys::LEFT_ALONE)
        }),
    };
    let took = begun.elapsed();
    let way = match (scope.stage, &answered) {
        (Stage::After, Ok(false)) => way(client, &scope.home).await,
        _ => None,
    };
    Probe {
        namespace: namespace.clone(),
        answered,
        took,
        way,
    }
}

/// Whether the API server reaches the webhook's Service: it is asked to pass a request on, and says what it meets. Whatever the
/// webhook answers, it is reached. `None` if that cannot be asked.
async fn way(client: &Client, home: &str) -> Option<Known<()>> {
    let path = format!("/api/v1/namespaces/{home}/services/https:{WEBHOOK}:443/proxy/");
    let request = Request::get(path).body(Vec::new()).ok()?;
    let Ok(answer) = timeout(PATIENCE, client.request_text(request)).await else {
        let seconds = PATIENCE.as_secs();
        let why =
            format!("a request that it passes on to the webhook's Service is lost ({seconds} s)");
        return Some(Err(why));
    };
    match answer {
        Err(kube::Error::Api(status)) => match status.code {
            503 => Some(Err(status.message)),
            403 => None,
            _ => Some(Ok(())),
        },
        Err(_) => None,
        Ok(_) => Some(Ok(())),
    }
}

/// What would become of a new pod.
pub(super) async fn trial(client: &Client, scope: &Scope) -> Option<Trial> {
    if scope.stage == Stage::Before {
        return None;
    }
    let namespace = match &scope.trial {
        Some(namespace) => namespace.clone(),
        None => injected_namespace(client).await?,
    };
    let became = admit(client, &namespace, plain()).await;
    let became = became.map(|mut pod| {
        // It is not stored, so it is in no namespace.
        pod.metadata.namespace = Some(namespace.clone());
        Seen::of(&pod)
    });
    Some(Trial { namespace, became })
}

/// The first namespace whose pods Istio injects.
async fn injected_namespace(client: &Client) -> Option<String> {
    let api: Api<Namespace> = Api::all(client.clone());
    for label in ["istio-injection=enabled", "istio.io/rev"] {
        let mut names = Vec::new();
        let selected = ListParams::default().labels(label);
        let take = |namespace: Namespace| {
            if namespace.metadata.deletion_timestamp.is_none() {
                names.push(namespace.name_any());
            }
        };
        cluster::each(&api, selected, take).await.ok()?;
        if let Some(first) = names.into_iter().min() {
            return Some(first);
        }
    }
    None
}
