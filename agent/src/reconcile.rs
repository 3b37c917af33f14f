//! From pods wanted to pods armed. Level-triggered: each pass compares all that is wanted with all that is there, and
//! whatever failed is tried again.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use sidestep_contract::Leave;

use crate::{
    arm::{self, ArmError, Armed},
    dataplane::{Cookie, Dataplane, DataplaneError},
    netns::Namespace,
    source::{Entry, PodName, Snapshot, Wanted},
    status::{PodState, PodStatus},
};

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// What is known of one pod.
#[derive(Debug)]
struct Pod {
    entry: Entry,
    /// Its namespace, as far as it could be found; perhaps armed by an earlier agent.
    cookie: Option<Cookie>,
    armed: Option<Armed>,
    failure: Option<Failure>,
}

/// A pod that could not be armed.
#[derive(Debug)]
struct Failure {
    error: String,
    next: Instant,
    wait: Duration,
}

/// All pods, and the dataplane they are in.
pub struct Reconciler<D> {
    dataplane: D,
    pods: BTreeMap<PodName, Pod>,
    /// Pods that are not wanted any more, until they are out of the kernel.
    departed: Vec<Armed>,
    strict: bool,
}

impl<D: Dataplane> Reconciler<D> {
    /// Starts with whatever the dataplane has; the first [`Self::want`] decides what of it stays.
    pub const fn new(dataplane: D, strict: bool) -> Self {
        Self {
            dataplane,
            pods: BTreeMap::new(),
            departed: Vec::new(),
            strict,
        }
    }

    /// Replaces what is wanted, and acts on it.
    pub fn want(&mut self, snapshot: &Snapshot) -> Result<(), DataplaneError> {
        let mut known = std::mem::take(&mut self.pods);
        let mut changed = Vec::new();
        for (name, (_, entry)) in &snapshot.pods {
            let before = known.remove(name);
            let same = before.as_ref().is_some_and(|pod| pod.entry == *entry);
            let mut pod = before.unwrap_or(Pod {
                entry: entry.clone(),
                cookie: None,
                armed: None,
                failure: None,
            });
            pod.entry.clone_from(entry);
            pod.failure = pod.failure.filter(|_| same);
            self.pods.insert(name.clone(), pod);
            if !same {
                changed.push(name);
            }
        }
        let departed = known.into_values().filter_map(|pod| pod.armed);
        self.departed.extend(departed);
        for name in changed {
            self.arm(name)?;
        }
        self.disarm_unwanted()
    }

    /// Tries again what failed and is due, notices what went away, and restores what was lost. The answer names what
    /// was restored.
    pub fn pass(&mut self) -> Result<Vec<String>, DataplaneError> {
        let restored = self.dataplane.repair()?;
        let now = Instant::now();
        let names: Vec<PodName> = self.pods.keys().cloned().collect();
        for name in names {
            let Some(pod) = self.pods.get(&name) else {
                continue;
            };
            let waits = pod
                .failure
                .as_ref()
                .is_some_and(|failure| failure.next > now);
            if pod.entry.is_ok() && !waits {
                // Nothing is written where nothing changed; what may change unseen are addresses and name servers.
                self.arm(&name)?;
                self.look_again(&name, !restored.is_empty());
            }
        }
        self.disarm_unwanted()?;
        Ok(restored)
    }

    /// When the next pass is due for a pod that failed.
    pub fn next_retry(&self) -> Option<Instant> {
        let failures = self.pods.values().filter_map(|pod| pod.failure.as_ref());
        failures.map(|failure| failure.next).min()
    }

    /// The dataplane, for who has to meddle with it.
    pub const fn dataplane(&mut self) -> &mut D {
        &mut self.dataplane
    }

    /// Takes everything out of the kernel.
    pub fn remove(&mut self) -> Result<(), DataplaneError> {
        self.dataplane.remove()
    }

    /// Every pod, for people.
    pub fn status(&self) -> Vec<PodStatus> {
        let flows = self.dataplane.flows();
        let open = |pod: &Pod| {
            pod.armed
                .as_ref()
                .and_then(|armed| flows.get(&armed.cookie))
        };
        self.pods
            .iter()
            .map(|(name, pod)| self.describe(name, pod, open(pod).copied().unwrap_or(0)))
            .collect()
    }

    fn arm(&mut self, name: &PodName) -> Result<(), DataplaneError> {
        let answer = self.try_arm(name);
        let Some(pod) = self.pods.get_mut(name) else {
            return Ok(());
        };
        match answer {
            Ok(Some(armed)) => {
                let us = armed.took.as_micros();
                tracing::info!(pod = %name, us, "armed");
                let cookie = armed.cookie;
                let old = pod.armed.replace(armed);
                pod.failure = None;
                // Its namespace was made anew: the old one's entries go.
                if let Some(old) = old.filter(|old| old.cookie != cookie) {
                    self.dataplane.disarm(old.cookie)?;
                    self.dataplane.delete_rules(&old.rules)?;
                }
            }
            Ok(None) => pod.failure = None, // left to Istio, or as it should be
            Err(error) => {
                let wait = pod
                    .failure
                    .as_ref()
                    .map_or(FIRST_RETRY, |f| (f.wait * 2).min(LAST_RETRY));
                tracing::warn!(pod = %name, %error, retry_ms = wait.as_millis(), "not armed");
                pod.failure = Some(Failure {
                    error: error.to_string(),
                    next: Instant::now() + wait,
                    wait,
                });
            }
        }
        Ok(())
    }

    /// Looks for the proxy of a pod that is not active yet, and of every pod where something was `lost` for a while.
    fn look_again(&mut self, name: &PodName, lost: bool) {
        if let Some(pod) = self.pods.get(name)
            && let (Ok(wanted), Some(armed)) = (&pod.entry, &pod.armed)
            && (lost || !self.dataplane.is_active(armed.cookie))
        {
            // Failing to look is no reason to do anything: the next pass looks again.
            let _unseen = arm::look_again(&mut self.dataplane, wanted, armed.cookie);
        }
    }

    fn try_arm(&mut self, name: &PodName) -> Result<Option<Armed>, ArmError> {
        let Some(pod) = self.pods.get_mut(name) else {
            return Ok(None);
        };
        pod.cookie = None;
        let Ok(wanted) = pod.entry.clone() else {
            return Ok(None);
        };
        let namespace = Namespace::open(&wanted.netns)?;
        let cookie = namespace.cookie()?;
        if let Some(other) = self.holder(cookie, name) {
            return Err(ArmError::Taken {
                netns: wanted.netns.clone(),
                other: other.to_string(),
            });
        }
        let Some(pod) = self.pods.get_mut(name) else {
            return Ok(None);
        };
        pod.cookie = Some(cookie);
        let before = pod.armed.as_ref();
        arm::arm(
            &mut self.dataplane,
            &namespace,
            &wanted,
            self.strict,
            before,
        )
    }

    /// Another pod that is armed in this namespace.
    fn holder(&self, cookie: Cookie, except: &PodName) -> Option<&PodName> {
        let mut others = self.pods.iter().filter(|(name, _)| *name != except);
        others
            .find(|(_, pod)| pod.armed.as_ref().is_some_and(|a| a.cookie == cookie))
            .map(|(name, _)| name)
    }

    /// Disarms every namespace that no wanted pod has: pods removed, left, gone, or of an earlier agent. In doubt a
    /// namespace stays armed: what is disarmed goes around the proxy.
    fn disarm_unwanted(&mut self) -> Result<(), DataplaneError> {
        for pod in self.pods.values_mut() {
            let gone = pod.armed.as_ref().is_some_and(|armed| {
                let elsewhere = pod.cookie != Some(armed.cookie);
                pod.entry.is_err() || elsewhere && !self.dataplane.is_attached(armed.cookie)
            });
            if gone && let Some(armed) = pod.armed.take() {
                self.dataplane.disarm(armed.cookie)?;
                self.dataplane.delete_rules(&armed.rules)?;
            }
        }
        let wanted = self.pods.values().filter(|pod| pod.entry.is_ok());
        let held: HashSet<Cookie> = wanted
            .clone()
            .flat_map(|pod| {
                pod.cookie
                    .into_iter()
                    .chain(pod.armed.as_ref().map(|a| a.cookie))
            })
            .collect();
        while let Some(armed) = self.departed.last() {
            // Another pod may have taken the namespace over.
            if !held.contains(&armed.cookie) {
                tracing::info!(cookie = armed.cookie, "disarmed");
                self.dataplane.disarm(armed.cookie)?;
            }
            self.dataplane.delete_rules(&armed.rules)?;
            self.departed.pop();
        }
        // What is left is an earlier agent's. A pod whose namespace cannot be found now may be one of them.
        let lost = wanted.clone().any(|pod| pod.cookie.is_none());
        let mut disarmed = false;
        for cookie in self.dataplane.armed()? {
            let doubtful = lost && self.dataplane.is_attached(cookie);
            if !held.contains(&cookie) && !doubtful {
                tracing::info!(cookie, "disarmed");
                self.dataplane.disarm(cookie)?;
                disarmed = true;
            }
        }
        if disarmed {
            self.dataplane.sweep_rules()?;
        }
        Ok(())
    }

    fn describe(&self, name: &PodName, pod: &Pod, flows: usize) -> PodStatus {
        let cookie = pod.armed.as_ref().map(|armed| armed.cookie);
        let state = match (&pod.entry, cookie) {
            (Err(_), _) => PodState::Left,
            (Ok(_), None) => PodState::Pending,
            (Ok(_), Some(cookie)) if self.dataplane.is_active(cookie) => PodState::Active,
            (Ok(_), Some(_)) => PodState::Armed,
        };
        let left = pod.entry.as_ref().err().map(Leave::to_string);
        let failed = pod.failure.as_ref().map(|failure| failure.error.clone());
        let wanted: Option<&Wanted> = pod.entry.as_ref().ok();
        let counts = cookie.map(|c| self.dataplane.counts(c)).unwrap_or_default();
        PodStatus {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            netns: wanted.map(|w| w.netns.clone()),
            cookie,
            state,
            reason: left.or(failed),
            policy: wanted.map(|w| w.policy.to_string()),
            programmed_us: pod
                .armed
                .as_ref()
                .map(|armed| u64::try_from(armed.took.as_micros()).unwrap_or(u64::MAX)),
            rows: counts
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(row, count)| (row.name().to_owned(), count))
                .collect(),
            flows,
        }
    }
}
