//! What one replica does for all: the one that holds the lease.

use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Client;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, watcher};
use sidestep_certs::keeper::Keeper;
use sidestep_certs::kube_store::KubeStore;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::tls::{self, Certificate, Managed};

mod election;
mod lease;

pub use election::{Seat, campaign};

/// What is wrong with the certificates, if anything.
pub type Trouble = watch::Receiver<Option<String>>;

/// Follows the Secret, on every replica, and keeps it, on the one that leads.
pub fn keep_certificates(
    client: &Client,
    managed: Managed,
    certificate: Arc<Certificate>,
    leads: watch::Receiver<bool>,
    tasks: &mut JoinSet<()>,
) -> Trouble {
    let Managed { names, lifetimes } = managed;
    let changed = Arc::new(Notify::new());
    tasks.spawn(tls::follow(
        client.clone(),
        names.clone(),
        certificate,
        Arc::clone(&changed),
    ));
    let configuration = names.configuration.clone();
    tasks.spawn(tell(client.clone(), configuration, Arc::clone(&changed)));
    let server = vec![names.server()];
    let keeper = Keeper::new(KubeStore::new(client.clone(), names), server, lifetimes);
    let (said, trouble) = watch::channel(None);
    tasks.spawn(keeper.run(leads, changed, said));
    trouble
}

/// Tells when the webhook configuration changes, for ever. The keeper looks from time to time anyway, so a watch that
/// fails costs no more than time.
async fn tell(client: Client, configuration: String, changed: Arc<Notify>) {
    let api: Api<PartialObjectMeta<MutatingWebhookConfiguration>> = Api::all(client);
    let only = Config::default().fields(&format!("metadata.name={configuration}"));
    let mut events = std::pin::pin!(watcher(api, only).default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(_) => changed.notify_one(),
            Err(error) => tracing::debug!(%error, configuration, "not watched; tried again"),
        }
    }
}
