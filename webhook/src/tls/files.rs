//! Certificate and key in files, read again when they change.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::Certificate;

/// The files of certificate and key, as PEM. A Secret's volume swaps a symbolic link, so the files themselves do not change.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate, and those of its issuers.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Files {
    /// Puts the files' content into `certificate`. Returns whether it differs from the last one.
    pub fn refresh(&self, certificate: &Certificate) -> anyhow::Result<bool> {
        Ok(certificate.replace(read(self)?))
    }

    /// Reads the files again every `interval`, for ever. Unusable files change nothing.
    pub async fn keep_fresh(self, certificate: Arc<Certificate>, interval: Duration) {
        let mut refused = None;
        loop {
            tokio::time::sleep(interval).await;
            match self.refresh(&certificate) {
                Ok(true) => tracing::info!("certificate replaced"),
                Ok(false) => refused = None,
                Err(error) => {
                    let error = format!("{error:#}");
                    if refused.as_ref() != Some(&error) {
                        tracing::warn!(%error, "could not use the certificate's files; serving the last valid one");
                    }
                    refused = Some(error);
                }
            }
        }
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
