//! The duties of the replica that holds the lease.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Client;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, watcher};
use sidestep_certs::keeper::Keeper;
use sidestep_certs::kube_store::KubeStore;
use sidestep_runtime::Tasks;
use tokio::sync::{Notify, watch};

use crate::metrics::Metrics;
use crate::tls::{self, Certificate, Managed};
use crate::world::{Agents, World};

mod agents;
mod election;
#[cfg(test)]
mod fake;
mod lease;
pub mod nodes;
pub mod waiting;

pub use election::{Seat, campaign};
pub use waiting::Patience;

use agents::Labeller;
use waiting::{Attendant, attend};

/// The duties of the leader beside certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duties {
    /// Whether to label nodes that cannot run Sidestep.
    pub label_nodes: bool,
    /// How long an agent may be not ready before its node is labelled, too; `None` means for ever.
    pub without_agent: Option<Duration>,
    /// What is done about pods that wait on nodes without a ready agent.
    pub patience: Patience,
}

/// What is known of the cluster.
#[derive(Clone, Debug)]
pub struct Known {
    /// The nodes with a ready agent.
    pub world: Arc<World>,
    /// 0 once those are known.
    pub missing: Arc<AtomicUsize>,
    /// How agents' pods are found.
    pub agents: Agents,
}

/// Does the duties whenever this replica leads.
pub fn serve(
    client: &Client,
    duties: Duties,
    known: Known,
    (leads, identity): (&watch::Receiver<bool>, String),
    metrics: &Arc<Metrics>,
    tasks: &mut Tasks,
) {
    let Duties {
        label_nodes,
        without_agent,
        patience,
    } = duties;
    let Known {
        world,
        missing,
        agents,
    } = known;
    if label_nodes {
        let client = client.clone();
        let label = while_leading(leads.clone(), move || nodes::label(client.clone()));
        tasks.spawn("labelling nodes", label);
    }
    if let Some(patience) = without_agent {
        let labeller = Labeller {
            client: client.clone(),
            world: Arc::clone(&world),
            missing: Arc::clone(&missing),
            patience,
        };
        let label = while_leading(leads.clone(), move || agents::label(labeller.clone()));
        tasks.spawn("labelling nodes without an agent", label);
    }
    if patience.report.or(patience.delete).is_some() {
        let attendant = Attendant {
            client: client.clone(),
            world,
            missing,
            agents,
            patience,
            metrics: Arc::clone(metrics),
            identity,
        };
        let attend = while_leading(leads.clone(), move || attend(attendant.clone()));
        tasks.spawn("looking after waiting pods", attend);
    }
    let (metrics, mut leads) = (Arc::clone(metrics), leads.clone());
    tasks.spawn("counting the leader", async move {
        loop {
            metrics.leads(*leads.borrow_and_update());
            if leads.changed().await.is_err() {
                return;
            }
        }
    });
}

/// Begins `work` whenever this replica becomes the leader, and drops it when it no longer is.
async fn while_leading<F: Future<Output = ()>>(
    mut leads: watch::Receiver<bool>,
    work: impl Fn() -> F,
) {
    while leads.wait_for(|leads| *leads).await.is_ok() {
        tokio::select! {
            () = work() => {}
            _ = leads.wait_for(|leads| !leads) => {}
        }
    }
}

/// The last error of the certificates, if any.
pub type Trouble = watch::Receiver<Option<String>>;

/// Follows the Secret, on every replica, and keeps it, on the one that leads.
pub fn keep_certificates(
    client: &Client,
    managed: Managed,
    certificate: Arc<Certificate>,
    leads: watch::Receiver<bool>,
    tasks: &mut Tasks,
) -> Trouble {
    let Managed { names, lifetimes } = managed;
    let changed = Arc::new(Notify::new());
    let follow = tls::follow(
        client.clone(),
        names.clone(),
        certificate,
        Arc::clone(&changed),
    );
    tasks.spawn("watching the certificate's Secret", follow);
    let configuration = names.configuration.clone();
    let tell = tell(client.clone(), configuration, Arc::clone(&changed));
    tasks.spawn("watching the webhook's registration", tell);
    let server = vec![names.server()];
    let keeper = Keeper::new(KubeStore::new(client.clone(), names), server, lifetimes);
    let (said, trouble) = watch::channel(None);
    tasks.spawn("keeping certificates", keeper.run(leads, changed, said));
    trouble
}

/// Reports changes of the webhook configuration, for ever. The keeper also looks from time to time, so a watch that fails
/// only delays it.
async fn tell(client: Client, configuration: String, changed: Arc<Notify>) {
    let api: Api<PartialObjectMeta<MutatingWebhookConfiguration>> = Api::all(client);
    let only = Config::default().fields(&format!("metadata.name={configuration}"));
    let mut events = std::pin::pin!(watcher(api, only).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(_) => changed.notify_one(),
            Err(error) => {
                tracing::debug!(%error, configuration, "could not watch the webhook configuration; will retry");
            }
        }
    }
}
