//! Takes the steps, on one replica at a time: the one that holds the lease. Should two believe that they do, the Secret's
//! version lets one of them write.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::authority::CannotMake;
use crate::holding::{Data, Holding, keys};
use crate::plan::{Step, Trusted, Wants, plan, take};
use crate::store::{Configuration, Store, StoreError};
use crate::{Lifetimes, bundle};

/// Between looks at the Secret and the configuration when nobody says that they changed.
const INTERVAL: Duration = Duration::from_secs(30);

/// Between two passes at least: somebody else who also writes the bundle, and writes it back, gets no faster answer.
const PAUSE: Duration = Duration::from_secs(1);

/// For a pass. What is dropped half-way is found as it is the next time.
const PATIENCE: Duration = Duration::from_secs(30);

/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

const OURS: [&str; 7] = [
    keys::CA_CERT,
    keys::CA_KEY,
    keys::LEAF_CERT,
    keys::LEAF_KEY,
    keys::NEXT_CERT,
    keys::NEXT_KEY,
    keys::PREVIOUS,
];

/// Why certificates are not as they should be.
#[derive(Debug, Error)]
pub enum Trouble {
    /// The Secret is somebody else's.
    #[error(
        "Secret {secret} has no label {label}=managed, so it is not changed: give it the label and what it holds is \
         replaced, or delete it, or use --certificates files",
        label = crate::kube_store::LABEL
    )]
    NotOurs {
        /// Its name.
        secret: String,
    },
    /// The API server.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The cryptography.
    #[error(transparent)]
    Make(#[from] CannotMake),
    /// No answer.
    #[error("the API server does not answer within {} seconds", PATIENCE.as_secs())]
    Slow,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// A step; there may be another one.
    Took(Step),
    /// Nothing is to be done before so much time has gone by.
    Rest(Duration),
}

/// Keeps one server's certificates.
#[derive(Debug)]
pub struct Keeper<S> {
    store: S,
    names: Vec<String>,
    lifetimes: Lifetimes,
    /// The next CA, and since when it has been seen in every bundle.
    seen: Option<(Vec<u8>, Instant)>,
    /// What was last said about a bad Secret, so as to say it once.
    said: Vec<String>,
}

impl<S: Store> Keeper<S> {
    /// Keeps the certificates of a server with these DNS names.
    pub fn new(store: S, names: Vec<String>, lifetimes: Lifetimes) -> Self {
        Self {
            store,
            names,
            lifetimes,
            seen: None,
            said: Vec::new(),
        }
    }

    /// Keeps them for ever, while `leads` says so; `nudge` tells that Secret or configuration may have changed, `trouble`
    /// learns what is wrong.
    pub async fn run(
        mut self,
        mut leads: watch::Receiver<bool>,
        nudge: Arc<Notify>,
        trouble: watch::Sender<Option<String>>,
    ) {
        loop {
            if leads.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            let pass = timeout(PATIENCE, self.pass(SystemTime::now()));
            let result = tokio::select! {
                ended = pass => ended.unwrap_or(Err(Trouble::Slow)),
                _lost = leads.wait_for(|leads| !leads) => {
                    self.seen = None;
                    trouble.send_replace(None);
                    continue;
                }
            };
            let rest = match &result {
                Ok(Pass::Took(step)) => {
                    tracing::info!(?step, secret = self.store.secret_name(), "certificates");
                    Duration::ZERO
                }
                Ok(Pass::Rest(rest)) => *rest,
                Err(Trouble::Store(StoreError::Conflict(_))) => Duration::ZERO,
                Err(_) => RETRY,
            };
            let error = result.err().map(|error| error.to_string());
            trouble.send_if_modified(|last| {
                let is_new = *last != error;
                if let Some(error) = error.as_ref().filter(|_| is_new) {
                    tracing::warn!(%error, "certificates");
                }
                last.clone_from(&error);
                is_new
            });
            sleep(PAUSE).await;
            if !*leads.borrow() {
                self.seen = None;
                trouble.send_replace(None);
            } else if let Some(rest) = rest.checked_sub(PAUSE) {
                tokio::select! {
                    _nudged_or_late = timeout(rest, nudge.notified()) => {}
                    _lost = leads.wait_for(|leads| !leads) => self.seen = None,
                }
            }
        }
    }

    /// Looks once, puts every bundle right, and takes at most one step.
    pub async fn pass(&mut self, now: SystemTime) -> Result<Pass, Trouble> {
        let stored = self.store.secret().await?;
        if stored.as_ref().is_some_and(|stored| !stored.is_managed) {
            let secret = self.store.secret_name();
            return Err(Trouble::NotOurs { secret });
        }
        let held = stored
            .as_ref()
            .map_or_else(Holding::default, |stored| Holding::read(&stored.data));
        self.say(&held);
        let configuration = self.store.configuration().await?;
        if let Some(configuration) = &configuration {
            self.write_bundle(configuration, &held, now).await?;
        }
        let trusted = self.trusted(configuration.as_ref(), &held);
        let wants = Wants {
            names: &self.names,
            lifetimes: self.lifetimes,
        };
        let step = plan(&held, trusted, now, &wants);
        let rest = match step {
            Step::Keep { until } => Some(until.duration_since(now).unwrap_or_default()),
            Step::Wait { more } => Some(more),
            Step::AddNext | Step::Promote | Step::Renew | Step::Forget => None,
        };
        if let (Some(rest), true) = (rest, held.faults.is_empty()) {
            return Ok(Pass::Rest(rest.clamp(PAUSE, INTERVAL)));
        }
        let data = take(step, &held, now, &wants)?.write();
        match stored {
            None => self.store.create_secret(data).await?,
            Some(stored) => {
                let data = beside_others(&stored.data, data);
                self.store.replace_secret(data, &stored.version).await?;
            }
        }
        Ok(Pass::Took(step))
    }

    async fn write_bundle(
        &self,
        configuration: &Configuration,
        held: &Holding,
        now: SystemTime,
    ) -> Result<(), StoreError> {
        let bundles = configuration.webhooks.iter();
        let bundles: Vec<_> = bundles.map(|webhook| webhook.bundle.as_slice()).collect();
        let wanted = bundle::wanted(held, &bundles, now);
        if wanted.is_empty() {
            return Ok(());
        }
        let mut wrong = configuration.webhooks.clone();
        wrong.retain(|webhook| !bundle::is(&webhook.bundle, &wanted));
        if wrong.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = wrong.iter().map(|webhook| webhook.name.as_str()).collect();
        tracing::info!(
            webhooks = names.join(", "),
            authorities = wanted.len(),
            "caBundle written"
        );
        let pem = bundle::pem(&wanted);
        self.store
            .write_bundle(&pem, &wrong, &configuration.version)
            .await
    }

    /// Every bundle holds the next CA by now: they were right, or have just been written. It counts from where it was
    /// found so, unbroken.
    fn trusted(&mut self, configuration: Option<&Configuration>, held: &Holding) -> Trusted {
        let Some(next) = &held.next else {
            self.seen = None;
            return Trusted::For(Duration::ZERO);
        };
        let webhooks = configuration.map_or(&[][..], |c| &c.webhooks);
        if webhooks.is_empty() {
            self.seen = None;
            return Trusted::NobodyAsks;
        }
        let der = next.cert.der();
        let held_so_far = webhooks
            .iter()
            .all(|webhook| bundle::holds(&webhook.bundle, &next.cert));
        let seen = self.seen.take();
        let seen = seen.filter(|(seen, _)| seen == der && held_so_far);
        let (_, since) = self
            .seen
            .insert(seen.unwrap_or_else(|| (der.to_vec(), Instant::now())));
        Trusted::For(since.elapsed())
    }

    fn say(&mut self, held: &Holding) {
        let faults: Vec<_> = held.faults.iter().map(ToString::to_string).collect();
        if faults != self.said {
            for fault in &faults {
                let secret = self.store.secret_name();
                tracing::warn!("Secret {secret}, {fault}; it is replaced");
            }
            self.said = faults;
        }
    }
}

/// What others put into the Secret stays there.
fn beside_others(before: &Data, ours: Data) -> Data {
    let others = before
        .iter()
        .filter(|(key, _)| !OURS.contains(&key.as_str()));
    let others = others.map(|(key, value)| (key.clone(), value.clone()));
    others.chain(ours).collect()
}
