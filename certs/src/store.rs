//! The Secret that holds the certificates, and the configuration that trusts them, as the keeper sees them.

use std::future::Future;

use thiserror::Error;

use crate::holding::Data;

/// The Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its content.
    pub data: Data,
    /// Whether it has the label that lets the keeper write it.
    pub is_managed: bool,
    /// The resource version that was read. A write that names it fails if another client wrote in the meantime.
    pub version: String,
}

/// The webhook configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Those of its webhooks that our Service serves.
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
    /// Another client wrote first: read again.
    #[error("{0} was changed by somebody else at the same moment")]
    Conflict(String),
    /// The API server refused, or could not be reached.
    #[error("{what}: {why}")]
    Failed {
        /// The request.
        what: String,
        /// The answer.
        why: String,
    },
}

/// The API server, or a test's fake of it.
pub trait Store: Send + Sync {
    /// The Secret's name, for messages.
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
