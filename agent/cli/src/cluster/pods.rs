//! Pods that concern Sidestep: what the API server has of them.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use sidestep_contract::waiting::Place;
use sidestep_contract::{istio_init, keys};

use super::each;

/// A pod that has a gate, or keeps Istio's own redirection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeenPod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) node: Option<String>,
    /// When it was made.
    pub(crate) made: Option<Time>,
    /// The reach of its shortcut, as its annotation has it.
    pub(crate) reach: Option<String>,
    pub(crate) seen: Seen,
}

/// What a pod itself says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It passed its gate.
    Passed,
    /// It has a gate that has not begun.
    Begins,
    /// It has a gate, and waits.
    Waits(Place),
    /// The webhook left it to Istio: the reason's word, and the sentence.
    Left { word: String, sentence: String },
    /// Istio injected it, and the webhook wrote nothing: it was not asked.
    NotAsked,
}

impl SeenPod {
    /// `None` for a pod that Istio did not inject, has ended, or goes.
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let goes = pod.metadata.deletion_timestamp.is_some();
        if goes || matches!(phase, Some("Succeeded" | "Failed")) {
            return None;
        }
        Some(Self {
            seen: Seen::of(pod)?,
            namespace: pod.namespace()?,
            name: pod.name_any(),
            node: pod.spec.as_ref()?.node_name.clone(),
            made: pod.creation_timestamp(),
            reach: pod.annotations().get(keys::SHORTCUT).cloned(),
        })
    }
}

impl Seen {
    /// `None` for a pod that Istio did not inject.
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let init = istio_init(pod);
        if init.as_ref().is_ok_and(|init| init.is_gate) {
            return Some(match Place::of(pod) {
                Some(place) => Self::Waits(place),
                None if passed(pod) => Self::Passed,
                None => Self::Begins,
            });
        }
        if let Some(why) = pod.annotations().get(keys::LEFT_ALONE) {
            let (word, sentence) = why.split_once(": ").unwrap_or((why, ""));
            return Some(Self::Left {
                word: word.to_owned(),
                sentence: sentence.to_owned(),
            });
        }
        init.is_ok().then_some(Self::NotAsked)
    }
}

/// Whether a pod's gate has ended well.
fn passed(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let statuses = status.and_then(|status| status.init_container_statuses.as_ref());
    statuses.into_iter().flatten().any(|one| {
        let ended = one
            .state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        one.name == keys::ISTIO_INIT && ended.is_some_and(|ended| ended.exit_code == 0)
    })
}

/// The pods of a namespace, or of all, that concern Sidestep.
pub(crate) async fn seen(client: &Client, namespace: Option<&str>) -> kube::Result<Vec<SeenPod>> {
    let api: Api<Pod> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let running = ListParams::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    let mut pods = Vec::new();
    each(&api, running, |pod| pods.extend(SeenPod::of(&pod))).await?;
    Ok(pods)
}
