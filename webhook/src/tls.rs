//! The certificate for new connections. It may come late, and may be replaced at any moment.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sidestep_certs::cert::Cert;

use crate::metrics::Metrics;

mod files;
mod managed;

pub use files::Files;
pub use managed::{Managed, follow, take};

/// The certificate for new connections. While there is none, every handshake fails.
#[derive(Debug, Default)]
pub struct Certificate {
    current: ArcSwapOption<CertifiedKey>,
    metrics: Arc<Metrics>,
}

/// Selects the process's implementation of cryptography. A second call changes nothing.
pub fn install_provider() {
    // The call fails if one was installed before, and there is no other than this one.
    let _installed = ring::default_provider().install_default();
}

impl Certificate {
    /// No certificate yet. The metrics show the expiry of the one that is set.
    pub fn shown_in(metrics: Arc<Metrics>) -> Self {
        Self {
            current: ArcSwapOption::empty(),
            metrics,
        }
    }

    /// What a TLS server needs: TLS 1.2 and later, HTTP/2 and HTTP/1.1.
    pub fn server_config(self: &Arc<Self>) -> anyhow::Result<ServerConfig> {
        let resolver = Arc::clone(self) as Arc<dyn ResolvesServerCert>;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Whether there is a certificate.
    pub fn is_there(&self) -> bool {
        self.current.load().is_some()
    }

    /// Uses this certificate from now on. Returns whether it differs from the last one.
    pub fn replace(&self, with: CertifiedKey) -> bool {
        let current = self.current.load();
        let changed = current.as_ref().is_none_or(|now| now.cert != with.cert);
        if changed {
            let leaf = with.cert.first().map(|leaf| Cert::from_der(leaf));
            if let Some(Ok(leaf)) = leaf {
                self.metrics.certificate_until(leaf.not_after);
            }
            self.current.store(Some(Arc::new(with)));
        }
        changed
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}
