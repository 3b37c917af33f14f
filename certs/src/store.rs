//! Where certificates are kept and trusted, as the keeper sees it.

use std::future::Future;

use thiserror::Error;

use crate::holding::Data;

/// The Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What it holds.
    pub data: Data,
    /// Whether it carries the label that makes it ours to write.
    pub is_managed: bool,
    /// What it was read as: a write that names it fails if somebody else wrote meanwhile.
    pub version: String,
}

/// The webhook configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Those of its webhooks that are served here.
    pub webhooks: Vec<Webhook>,
    /// As with [`Stored`].
    pub version: String,
}

/// One of a configuration's webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Its place in the configuration.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// Its `caBundle`.
    pub bundle: Vec<u8>,
}

/// What went wrong.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Somebody else wrote first: read again.
    #[error("{0} was changed by somebody else at the same moment")]
    Conflict(String),
    /// The API server refused, or was not there.
    #[error("{what}: {why}")]
    Failed {
        /// What was tried.
        what: String,
        /// What was said.
        why: String,
    },
}

/// The API server, or a test's idea of it.
pub trait Store: Send + Sync {
    /// The Secret's name, for people.
    fn secret_name(&self) -> String;

    /// The Secret, if there is one.
    fn secret(&self) -> impl Future<Output = Result<Option<Stored>, StoreError>> + Send;

    /// Makes the Secret.
    fn create_secret(&self, data: Data) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Replaces the Secret's content if it is still as it was read.
    fn replace_secret(
        &self,
        data: Data,
        version: &str,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The webhook configuration, if there is one.
    fn configuration(
        &self,
    ) -> impl Future<Output = Result<Option<Configuration>, StoreError>> + Send;

    /// Writes this bundle into these webhooks if the configuration is still as it was read.
    fn write_bundle(
        &self,
        pem: &str,
        webhooks: &[Webhook],
        version: &str,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}
