//! The server's certificate, read again when its files change.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Where certificate and key lie, as PEM. A Secret's volume swaps a link, so nothing is known of the files themselves.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate, and those of its issuers.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// The certificate that new connections get.
#[derive(Debug)]
pub struct Certificate {
    files: Files,
    current: ArcSwap<CertifiedKey>,
}

/// Makes the process use one implementation of cryptography; twice is once.
pub fn install_provider() {
    // It fails where another was installed, and there is none but this one.
    let _installed = ring::default_provider().install_default();
}

impl Certificate {
    /// Reads the files.
    pub fn read(files: Files) -> anyhow::Result<Arc<Self>> {
        let current = ArcSwap::from_pointee(read(&files)?);
        Ok(Arc::new(Self { files, current }))
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

    /// Reads the files again every `interval`, for ever. Files that cannot be used change nothing.
    pub async fn keep_fresh(self: Arc<Self>, interval: Duration) {
        let mut refused = None;
        loop {
            tokio::time::sleep(interval).await;
            match self.refresh() {
                Ok(true) => tracing::info!("certificate replaced"),
                Ok(false) => refused = None,
                Err(error) => {
                    let error = format!("{error:#}");
                    if refused.as_ref() != Some(&error) {
                        tracing::warn!(%error, "the certificate's files cannot be used; the last good one stays");
                    }
                    refused = Some(error);
                }
            }
        }
    }

    /// Reads the files again; whether the certificate is another one.
    pub fn refresh(&self) -> anyhow::Result<bool> {
        let read = read(&self.files)?;
        let changed = read.cert != self.current.load().cert;
        if changed {
            self.current.store(Arc::new(read));
        }
        Ok(changed)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(files: &Files) -> anyhow::Result<CertifiedKey> {
    let Files { certificate, key } = files;
    let pem = fs::read(certificate).with_context(|| certificate.display().to_string())?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .with_context(|| certificate.display().to_string())?;
    if chain.is_empty() {
        bail!("{}: no certificate in it", certificate.display());
    }
    let pem = fs::read(key).with_context(|| key.display().to_string())?;
    let private = PrivateKeyDer::from_pem_slice(&pem).with_context(|| key.display().to_string())?;
    let provider: CryptoProvider = ring::default_provider();
    // Certificate and key are two files: for a moment they may not belong together.
    CertifiedKey::from_der(chain, private, &provider)
        .with_context(|| format!("{} and {}", certificate.display(), key.display()))
}
