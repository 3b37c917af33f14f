//! Takes the steps of the plan, on the replica that holds the lease. If two replicas believe that they hold it, the
//! Secret's resource version lets only one of them write.

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

/// Time between two looks at Secret and configuration if no watch reports a change.
const INTERVAL: Duration = Duration::from_secs(30);

/// Least time between two passes. If another program keeps writing its own bundle, we answer no faster than this.
const PAUSE: Duration = Duration::from_secs(1);

/// Most time for a pass. The next pass starts from whatever a pass that was cut off has written.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time between a failed pass and the next one.
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

/// Why the keeper could not do its work.
#[derive(Debug, Error)]
pub enum Trouble {
    /// The Secret has no label of ours, so the keeper must not write it.
    #[error(
        "Secret {secret} has no label {label}=managed, so it is not changed: give it the label and what it holds is \
         replaced, or delete it, or use --certificates files",
        label = crate::kube_store::LABEL
    )]
    NotOurs {
        /// Its name.
        secret: String,
    },
    /// The API server refused a request, or could not be reached.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No certificate could be made.
    #[error(transparent)]
    Make(#[from] CannotMake),
    /// The API server did not answer in time.
    #[error("the API server does not answer within {} seconds", PATIENCE.as_secs())]
    Slow,
}

/// The result of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// A step was taken; another one may be due.
    Took(Step),
    /// Nothing is due before this much time has passed.
    Rest(Duration),
}

/// Keeps the certificates of one server.
#[derive(Debug)]
pub struct Keeper<S> {
    store: S,
    names: Vec<String>,
    lifetimes: Lifetimes,
    /// The next CA, and since when every bundle has held it.
    seen: Option<(Vec<u8>, Instant)>,
    /// The last logged fault of the Secret: each fault is logged once.
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

    /// Keeps the certificates for ever, while `leads` is true. `nudge` reports that Secret or configuration may have
    /// changed; `trouble` gets the last error.
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
                    tracing::info!(
                        ?step,
                        secret = self.store.secret_name(),
                        "certificate rotation: step taken"
                    );
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
                    tracing::warn!(%error, "could not check certificates; will retry");
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

    /// Reads Secret and configuration once, corrects every bundle, and takes at most one step.
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

    /// Notes that every bundle holds the next CA: each was right, or has just been written. The time counts from the first
    /// of an unbroken row of passes that found it so.
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
                tracing::warn!("Secret {secret}, {fault}; the keeper replaces it");
            }
            self.said = faults;
        }
    }
}

/// Keys of the Secret that are not ours stay there.
fn beside_others(before: &Data, ours: Data) -> Data {
    let others = before
        .iter()
        .filter(|(key, _)| !OURS.contains(&key.as_str()));
    let others = others.map(|(key, value)| (key.clone(), value.clone()));
    others.chain(ours).collect()
}
