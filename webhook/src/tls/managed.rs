//! The certificate in a Secret that `sidestep-certs` keeps. Every replica follows it, also those that do not lead.

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
    /// The Secret that holds them, and the configuration that must trust them.
    pub names: Names,
    /// How long they live.
    pub lifetimes: Lifetimes,
}

/// Keeps `certificate` equal to the Secret's, for ever, and reports changes of the Secret to the keeper.
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
                tracing::warn!("Secret {name} is gone; serving its last certificate");
            }
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => {
                tracing::warn!(%error, "could not watch Secret {name}; will retry");
                continue;
            }
        }
        changed.notify_one();
    }
}

/// Serves the certificate in the Secret. An invalid one changes nothing: the leader replaces it, or logs why it does not.
pub fn take(data: &Data, name: &str, certificate: &Certificate) {
    let leaf = match holding::leaf(data) {
        Ok(Some(leaf)) => leaf,
        Ok(None) => return,
        Err(fault) => {
            tracing::warn!("Secret {name}, {fault}; serving its last certificate");
            return;
        }
    };
    match certified(&leaf) {
        Ok(key) => {
            if certificate.replace(key) {
                tracing::info!("serving the certificate of Secret {name}");
            }
        }
        Err(error) => {
            tracing::warn!("could not use Secret {name}: {error:#}; serving its last certificate");
        }
    }
}

fn certified(leaf: &Leaf) -> anyhow::Result<CertifiedKey> {
    let chain = vec![CertificateDer::from(leaf.cert.der().to_vec())];
    let key = PrivateKeyDer::from_pem_slice(leaf.key.pem().as_bytes()).context("tls.key")?;
    CertifiedKey::from_der(chain, key, &ring::default_provider()).context("tls.crt and tls.key")
}
