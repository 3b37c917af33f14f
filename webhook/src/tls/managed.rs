//! The certificate in a Secret that `sidestep-certs` keeps: every replica follows it, whoever leads.

use std::pin::pin;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Config, Event, watcher};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sidestep_certs::Lifetimes;
use sidestep_certs::authority::Leaf;
use sidestep_certs::holding::{self, Data};
use sidestep_certs::kube_store::Names;
use tokio::sync::Notify;

use super::Certificate;

/// Certificates that the server makes itself.
#[derive(Clone, Debug)]
pub struct Managed {
    /// Where they are kept, and who must trust them.
    pub names: Names,
    /// How long they live.
    pub lifetimes: Lifetimes,
}

/// Keeps `certificate` as the Secret is, for ever, and tells the keeper when the Secret changes.
pub async fn follow(
    client: Client,
    names: Names,
    certificate: Arc<Certificate>,
    changed: Arc<Notify>,
) {
    let Names {
        namespace, secret, ..
    } = names;
    let api: Api<Secret> = Api::namespaced(client, &namespace);
    let only = Config::default().fields(&format!("metadata.name={secret}"));
    let name = format!("{namespace}/{secret}");
    mirror(watcher(api, only), &name, &certificate, &changed).await;
}

async fn mirror(
    events: impl Stream<Item = Result<Event<Secret>, watcher::Error>> + Send,
    name: &str,
    certificate: &Certificate,
    changed: &Notify,
) {
    let mut events = pin!(events.default_backoff());
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::InitApply(secret) | Event::Apply(secret)) => {
                take(&secret.data.unwrap_or_default(), name, certificate);
            }
            Ok(Event::Delete(_)) => {
                tracing::warn!("Secret {name} is gone; what it held is served on");
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => {
                tracing::warn!(%error, "Secret {name} cannot be watched; this is tried again");
                continue;
            }
        }
        changed.notify_one();
    }
}

/// Serves what the Secret of that name holds. What is no good changes nothing: who leads replaces it, or says why not.
pub fn take(data: &Data, name: &str, certificate: &Certificate) {
    let leaf = match holding::leaf(data) {
        Ok(Some(leaf)) => leaf,
        Ok(None) => return,
        Err(fault) => {
            tracing::warn!("Secret {name}, {fault}; what it held is served on");
            return;
        }
    };
    match certified(&leaf) {
        Ok(key) => {
            if certificate.replace(key) {
                tracing::info!("certificate of Secret {name} served");
            }
        }
        Err(error) => {
            tracing::warn!("Secret {name} cannot be used: {error:#}; what it held is served on");
        }
    }
}

fn certified(leaf: &Leaf) -> anyhow::Result<CertifiedKey> {
    let chain = vec![CertificateDer::from(leaf.cert.der().to_vec())];
    let key = PrivateKeyDer::from_pem_slice(leaf.key.pem().as_bytes()).context("tls.key")?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).context("tls.crt and tls.key")
}
