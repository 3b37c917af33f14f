//! Watches the pods at their gates; reports and deletes those for which it is due.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use k8s_openapi::api::events::v1::Event as Report;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event, watcher};
use sidestep_contract::{keys, reporter};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Book, Due, Patience, Place, Waiting};
use crate::metrics::Metrics;
use crate::world::{Agents, World};

/// Time between two rounds.
const INTERVAL: Duration = Duration::from_secs(5);

/// The API server takes no Event with a longer note, in bytes.
const NOTE: usize = 1024;

/// What its author can do for a pod that waits.
const WITHOUT_SIDESTEP: &str = "To do without Sidestep, label the pod (in its template) or its namespace \
                                sidestep.dev/enabled=false and delete the pod.";

/// What the rounds need.
#[derive(Clone)]
pub(in crate::leader) struct Attendant {
    pub(in crate::leader) client: Client,
    pub(in crate::leader) world: Arc<World>,
    /// 0 once the nodes with a ready agent are known.
    pub(in crate::leader) missing: Arc<AtomicUsize>,
    pub(in crate::leader) patience: Patience,
    pub(in crate::leader) metrics: Arc<Metrics>,
    /// The selector of agents' pods, for messages.
    pub(in crate::leader) agents: Agents,
    /// The reporter named in Events.
    pub(in crate::leader) identity: String,
}

/// Attends to the pods that wait for as long as the future is polled.
pub(in crate::leader) async fn attend(attendant: Attendant) {
    let pods: Api<Pod> = Api::all(attendant.client.clone());
    // A pod that has passed its gate is soon no longer pending, and leaves the watch.
    let at_gates = Config::default()
        .labels(&format!("{}=true", keys::ACCELERATED))
        .fields("status.phase=Pending")
        .page_size(100);
    let mut events = pin!(watcher(pods, at_gates).default_backoff());
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut book = Book::default();
    let mut listed = BTreeSet::new();
    let mut said = None;
    loop {
        tokio::select! {
            event = events.next() => match event {
                None => return,
                Some(Ok(Event::Init)) => listed.clear(),
                Some(Ok(Event::InitApply(pod))) => {
                    listed.extend(pod.metadata.uid.clone());
                    book.see(&pod);
                }
                Some(Ok(Event::InitDone)) => {
                    let all = std::mem::take(&mut listed);
                    book.keep_only(|uid| all.contains(uid));
                }
                Some(Ok(Event::Apply(pod))) => book.see(&pod),
                Some(Ok(Event::Delete(pod))) => book.forget(&pod),
                Some(Err(error)) => tracing::warn!(%error, "could not watch pods at their gates; will retry"),
            },
            _ = ticks.tick() => {
                if attendant.missing.load(Ordering::Acquire) > 0 {
                    continue;
                }
                let cluster = attendant.world.cluster();
                let due = book.due(&cluster, attendant.patience, Instant::now());
                let error = attendant.act(due, &mut book).await.err();
                if let Some(error) = error.as_ref().filter(|_| error != said) {
                    tracing::warn!("{error}; will retry");
                }
                said = error;
            }
        }
    }
}

impl Attendant {
    /// Does all that is due, and returns the last error.
    async fn act(&self, due: Due, book: &mut Book) -> Result<(), String> {
        let Due {
            report,
            delete,
            overdue,
        } = due;
        self.metrics.waiting(overdue);
        let mut outcome = Ok(());
        for pod in report {
            let (reason, note) = match &pod.place {
                Place::Gate(node) => ("WaitingForSidestep", waits(node, &self.agents)),
                Place::Nowhere(why) => ("UnschedulableWithSidestep", fits_nowhere(why)),
            };
            if let Err(error) = self.report(&pod, reason, "Wait", note).await {
                outcome = Err(error);
                continue;
            }
            tracing::warn!(
                pod = pod.name,
                namespace = pod.namespace,
                "{}",
                sentence(&pod.place)
            );
            book.reported(&pod.uid);
        }
        for pod in delete {
            match self.delete(&pod).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    outcome = Err(error);
                    continue;
                }
            }
            tracing::warn!(
                pod = pod.name,
                namespace = pod.namespace,
                "deleted: {}",
                sentence(&pod.place)
            );
            self.metrics.deleted();
            book.deleted(&pod.uid);
            let note = format!(
                "It is deleted so that its controller makes another one: {}.",
                sentence(&pod.place)
            );
            let said = self.report(&pod, "DeletedBySidestep", "Delete", note);
            outcome = said.await.and(outcome);
        }
        outcome
    }

    /// One Event for each pod and reason, whichever replica leads: the name of a second one is taken.
    async fn report(
        &self,
        pod: &Waiting,
        reason: &str,
        action: &str,
        note: String,
    ) -> Result<(), String> {
        let api: Api<Report> = Api::namespaced(self.client.clone(), &pod.namespace);
        let event = self.event(pod, reason, action, note);
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => Ok(()),
            // 404: the namespace is being deleted, and its pods with it.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(format!(
                "an Event for a pod that waits cannot be written: {error}"
            )),
        }
    }

    fn event(&self, pod: &Waiting, reason: &str, action: &str, mut note: String) -> Report {
        note.truncate(note.floor_char_boundary(NOTE));
        let Waiting {
            namespace,
            name,
            uid,
            place: _,
            version: _,
            is_replaced: _,
        } = pod;
        Report {
            metadata: ObjectMeta {
                name: Some(format!("{}.{uid}", reason.to_lowercase())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(Timestamp::now())),
            reporting_controller: Some(reporter::WEBHOOK.to_owned()),
            reporting_instance: Some(self.identity.chars().take(128).collect()),
            action: Some(action.to_owned()),
            reason: Some(reason.to_owned()),
            type_: Some("Warning".to_owned()),
            note: Some(note),
            regarding: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(namespace.clone()),
                name: Some(name.clone()),
                uid: Some(uid.clone()),
                ..ObjectReference::default()
            }),
            ..Report::default()
        }
    }

    /// Deletes the pod as it was seen, not a pod that has taken its name or has passed its gate in the meantime. Returns
    /// whether it did; if not, the watch soon reports the pod's present state.
    async fn delete(&self, pod: &Waiting) -> Result<bool, String> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let this = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(pod.uid.clone()),
                resource_version: pod.version.clone(),
            }),
            ..DeleteParams::default()
        };
        match api.delete(&pod.name, &this).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(format!(
                "pod {}/{} waits and cannot be deleted: {error}",
                pod.namespace, pod.name
            )),
        }
    }
}

fn waits(node: &str, agents: &Agents) -> String {
    let Agents {
        namespace,
        selector,
    } = agents;
    format!(
        "The pod waits at its gate (init container istio-init) for Sidestep's node agent, and none is ready on node {node}. \
         It starts when one is. Look at the agent there: kubectl get pods -n {namespace} -l {selector} -o wide \
         --field-selector spec.nodeName={node}. {WITHOUT_SIDESTEP}",
    )
}

fn fits_nowhere(why: &str) -> String {
    format!(
        "The scheduler finds no node for the pod, which Sidestep keeps off nodes labelled {} or {}: kubectl get nodes -L {0},{1} \
         shows them. {WITHOUT_SIDESTEP} The scheduler says: {why}",
        keys::UNSUPPORTED,
        keys::WITHOUT_AGENT,
    )
}

/// Where and why a pod waits, in a sentence for the log.
fn sentence(place: &Place) -> String {
    match place {
        Place::Gate(node) => {
            format!("the pod waits at its gate, and no agent is ready on node {node}")
        }
        Place::Nowhere(why) => format!("no node is found for the pod: {why}"),
    }
}

#[cfg(test)]
mod tests;
