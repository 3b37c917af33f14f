//! An API server that is a few values.

use std::sync::{Arc, Mutex, MutexGuard};

use sidestep_certs::holding::Data;
use sidestep_certs::store::{Configuration, Store, StoreError, Stored, Webhook};

#[derive(Clone, Debug, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) secret: Option<Stored>,
    /// The bundle of each webhook.
    pub(crate) bundles: Option<Vec<Vec<u8>>>,
    /// How often the configuration was written.
    pub(crate) bundle_writes: usize,
    version: u64,
    /// The next write finds that somebody else was first.
    pub(crate) race: bool,
    /// Nothing is answered any more.
    pub(crate) hangs: bool,
}

impl State {
    fn raced(&mut self, what: &str) -> Result<String, StoreError> {
        self.version += 1;
        if std::mem::take(&mut self.race) {
            return Err(StoreError::Conflict(what.to_owned()));
        }
        Ok(self.version.to_string())
    }
}

impl Fake {
    /// A configuration with two webhooks that trust nobody yet, and no Secret.
    pub(crate) fn new() -> Self {
        let fake = Self::default();
        fake.state().bundles = Some(vec![vec![], vec![]]);
        fake
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics while it looks")
    }

    pub(crate) fn put(&self, data: Data, is_managed: bool) {
        let mut state = self.state();
        let version = state.raced("").unwrap_or_default();
        state.secret = Some(Stored {
            data,
            is_managed,
            version,
        });
    }

    pub(crate) fn data(&self) -> Data {
        let state = self.state();
        state.secret.as_ref().expect("a Secret").data.clone()
    }
}

impl Store for Fake {
    fn secret_name(&self) -> String {
        "sidestep-system/sidestep-webhook-tls".to_owned()
    }

    async fn secret(&self) -> Result<Option<Stored>, StoreError> {
        if self.state().hangs {
            std::future::pending::<()>().await;
        }
        Ok(self.state().secret.clone())
    }

    async fn create_secret(&self, data: Data) -> Result<(), StoreError> {
        let mut state = self.state();
        let version = state.raced("Secret")?;
        assert!(state.secret.is_none(), "nothing is overwritten");
        state.secret = Some(Stored {
            data,
            is_managed: true,
            version,
        });
        Ok(())
    }

    async fn replace_secret(&self, data: Data, version: &str) -> Result<(), StoreError> {
        let mut state = self.state();
        let next = state.raced("Secret")?;
        let secret = state.secret.as_mut().expect("a Secret");
        if secret.version != version {
            return Err(StoreError::Conflict("Secret".to_owned()));
        }
        secret.data = data;
        secret.version = next;
        Ok(())
    }

    async fn configuration(&self) -> Result<Option<Configuration>, StoreError> {
        let state = self.state();
        Ok(state.bundles.as_ref().map(|bundles| Configuration {
            webhooks: bundles
                .iter()
                .enumerate()
                .map(|(index, bundle)| Webhook {
                    index,
                    name: format!("{index}.pods.sidestep.dev"),
                    bundle: bundle.clone(),
                })
                .collect(),
            version: state.version.to_string(),
        }))
    }

    async fn write_bundle(
        &self,
        pem: &str,
        webhooks: &[Webhook],
        version: &str,
    ) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.version.to_string() != version {
            return Err(StoreError::Conflict("configuration".to_owned()));
        }
        state.raced("configuration")?;
        state.bundle_writes += 1;
        let bundles = state.bundles.as_mut().expect("a configuration");
        for webhook in webhooks {
            bundles[webhook.index] = pem.as_bytes().to_vec();
        }
        Ok(())
    }
}
