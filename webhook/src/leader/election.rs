//! Stands for election until the process stops.

use std::future::Future;
use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::lease::{Candidate, INTERVAL, LEADS, Move};

/// The lease, and the candidate for it.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub lease: String,
    /// This process's name, which no other process has.
    pub identity: String,
}

impl Seat {
    /// The lease of that name. A container that is restarted in the same pod is another candidate: requests of the container
    /// before it may still be on their way.
    pub fn new(namespace: String, lease: String, replica: &str) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let started = since.unwrap_or_default().subsec_nanos();
        Self {
            namespace,
            lease,
            identity: format!("{replica}_{started:08x}"),
        }
    }
}

/// Stands for election until `stop` ends, and then lets go. `leads` tells, at every moment, whether this replica leads.
pub async fn campaign(
    client: Client,
    seat: Seat,
    leads: watch::Sender<bool>,
    stop: impl Future<Output = ()> + Send,
) {
    let Seat {
        namespace,
        lease,
        identity,
    } = seat;
    let mut candidacy = Candidacy {
        api: Api::namespaced(client, &namespace),
        name: lease,
        candidate: Candidate::new(identity),
        said: None,
    };
    let mut stop = std::pin::pin!(stop);
    loop {
        // A leader ignores an answer that comes too late. It has lost the lease by then, and may win it again.
        let now = Instant::now();
        let until = candidacy.candidate.leads_until();
        let until = until.filter(|until| *until > now).unwrap_or(now + LEADS);
        let round = async {
            let _in_time = timeout_at(until, candidacy.round()).await;
        };
        tokio::select! {
            () = &mut stop => break,
            () = round => {}
        }
        let until = candidacy.candidate.leads_until();
        let is_leader = until.is_some_and(|until| Instant::now() < until);
        leads.send_if_modified(|leads| {
            let changed = *leads != is_leader;
            if changed {
                tracing::info!(leads = is_leader, "leadership changed");
            }
            *leads = is_leader;
            changed
        });
        let next = Instant::now() + INTERVAL;
        let next = until
            .filter(|_| is_leader)
            .map_or(next, |until| next.min(until));
        tokio::select! {
            () = &mut stop => break,
            () = sleep_until(next) => {}
        }
    }
    if leads.send_replace(false) {
        let _in_time = timeout(LEADS, candidacy.release()).await;
    }
}

struct Candidacy {
    api: Api<Lease>,
    name: String,
    candidate: Candidate,
    /// The last logged failure: each failure is logged once.
    said: Option<String>,
}

impl Candidacy {
    async fn round(&mut self) {
        let error = self.try_round().await.err().map(|error| error.to_string());
        if let Some(error) = error.as_ref().filter(|_| error != self.said) {
            tracing::warn!(%error, lease = self.name, "could neither take nor renew the lease; will retry");
        }
        self.said = error;
    }

    async fn try_round(&mut self) -> kube::Result<()> {
        let begun = Instant::now();
        let found = self.api.get_opt(&self.name).await?;
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        let Move::Write(spec) = self.candidate.next(spec, begun) else {
            return Ok(());
        };
        match self.write(found, spec).await {
            Ok(()) => {
                self.candidate.wrote(begun);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.candidate.lost();
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn write(&self, found: Option<Lease>, spec: LeaseSpec) -> kube::Result<()> {
        let params = PostParams::default();
        if let Some(mut lease) = found {
            lease.spec = Some(spec);
            self.api.replace(&self.name, &params, &lease).await?;
        } else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(spec),
            };
            self.api.create(&params, &lease).await?;
        }
        Ok(())
    }

    async fn release(&self) {
        let released = async {
            let lease = self.api.get(&self.name).await?;
            let spec = lease.spec.clone().unwrap_or_default();
            match self.candidate.released(&spec) {
                Some(spec) => self.write(Some(lease), spec).await,
                None => Ok(()),
            }
        };
        if let Err(error) = released.await {
            tracing::warn!(%error, lease = self.name, "could not release the lease; it expires by itself");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use serde_json::Value;
    use tokio::time::sleep;

    use super::*;
    use crate::leader::fake::{client, refusal};

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_was_without_the_api_server_for_long_leads_again() {
        let is_there = Arc::new(AtomicBool::new(true));
        let stored: Mutex<Option<Value>> = Mutex::default();
        let client = client({
            let is_there = Arc::clone(&is_there);
            move |asked| {
                is_there.load(Ordering::Relaxed).then(|| {
                    let mut stored = stored.lock().expect("nobody panics");
                    if asked.method != "GET" {
                        *stored = Some(asked.body.clone());
                    }
                    let lease = stored.clone();
                    lease.map_or_else(|| refusal(404), |lease| (200, lease))
                })
            }
        });
        let seat = Seat::new("here".to_owned(), "lease".to_owned(), "one");
        let (sender, mut leads) = watch::channel(false);
        let campaign = tokio::spawn(campaign(client, seat, sender, pending()));
        let soon = Duration::from_mins(1);
        let mut until = async |wanted| {
            let changed = leads.wait_for(|leads| *leads == wanted);
            let changed = timeout(soon, changed).await;
            changed.map(|leads| *leads.expect("it campaigns"))
        };
        assert_eq!(until(true).await, Ok(true));
        is_there.store(false, Ordering::Relaxed);
        assert_eq!(until(false).await, Ok(false), "it can no longer know");
        sleep(LEADS).await;
        is_there.store(true, Ordering::Relaxed);
        assert_eq!(until(true).await, Ok(true));
        campaign.abort();
    }
}
