//! The certificate that new connections get: it may come late, and be replaced at any moment.

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

/// The certificate that new connections get. While there is none, none is made.
#[derive(Debug, Default)]
pub struct Certificate {
    current: ArcSwapOption<CertifiedKey>,
    metrics: Arc<Metrics>,
}

/// Makes the process use one implementation of cryptography; twice is once.
pub fn install_provider() {
    // It fails where another was installed, and there is none but this one.
    let _installed = ring::default_provider().install_default();
}

impl Certificate {
    /// None yet; its expiry is shown in these metrics.
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

    /// Whether there is one.
    pub fn is_there(&self) -> bool {
        self.current.load().is_some()
    }

    /// Uses this one from now on; whether it is another one.
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
