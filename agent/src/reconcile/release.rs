//! Which namespaces are let go, and letting them go: `plan::release` decides about each.

use std::collections::HashSet;

use sidestep_kernel::netns::Cookie;

use super::{
    Armed, Node, PodEvent, Reconciler, Release,
    plan::{self, Claim, Fate},
};
use crate::{
    dataplane::{Dataplane, DataplaneError},
    pods::wanted::PodName,
};

/// Most namespaces that are let go in one turn, so that new pods and the heartbeat have theirs between two.
const AT_ONCE: usize = 64;

/// A namespace that no pod wants any more, until it is out of the kernel.
#[derive(Debug)]
pub(super) struct Departed {
    pub(super) name: PodName,
    pub(super) armed: Armed,
}

/// One turn: an error holds up no other namespace.
#[derive(Default)]
struct Batch {
    disarmed: usize,
    errors: Vec<DataplaneError>,
}

impl Batch {
    const fn is_full(&self) -> bool {
        self.disarmed >= AT_ONCE
    }

    /// The answer, or nothing where there is none: then nothing may follow from it.
    fn ask<T>(&mut self, answer: Result<T, DataplaneError>) -> Option<T> {
        answer.map_err(|error| self.errors.push(error)).ok()
    }
}

impl<D: Dataplane, N: Node> Reconciler<D, N> {
    /// Lets go of every namespace that may be let go: of pods removed or left, gone, or an earlier agent's.
    pub(super) fn release(&mut self) -> Vec<DataplaneError> {
        let mut batch = Batch::default();
        self.let_pods_go(&mut batch);
        let held = self.held();
        self.disarm_departed(&held, &mut batch);
        self.disarm_strangers(&held, &mut batch);
        self.clean_up(&mut batch);
        self.more_to_release = batch.is_full();
        batch.errors
    }

    /// What is to become of a namespace: `plan::release`, with what it asks for.
    fn fate(&self, cookie: Cookie, claim: Claim, batch: &mut Batch) -> Fate {
        let when = self.mode.release;
        match plan::release(claim, None, when) {
            Fate::CheckLink => match batch.ask(self.dataplane.is_attached(cookie)) {
                Some(attached) => plan::release(claim, Some(attached), when),
                None => Fate::Keep,
            },
            fate => fate,
        }
    }

    fn let_pods_go(&mut self, batch: &mut Batch) {
        let claims: Vec<_> = self
            .pods
            .iter()
            .filter_map(|(name, pod)| {
                let cookie = pod.armed_in()?;
                let claim = match &pod.entry {
                    Err(_) if self.mode.release == Release::Unwanted => Claim::Nobody,
                    _ if pod.cookie == Some(cookie) => Claim::Present,
                    _ => Claim::Absent,
                };
                Some((name.clone(), cookie, claim))
            })
            .collect();
        for (name, cookie, claim) in claims {
            if self.fate(cookie, claim, batch) == Fate::Disarm
                && let Some(armed) = self.pods.get_mut(&name).and_then(|pod| pod.armed.take())
            {
                self.depart(&name, Some(armed));
            }
        }
    }

    /// The namespaces of pods that are wanted, armed or to be armed.
    fn held(&self) -> HashSet<Cookie> {
        let pods = self.pods.values();
        pods.filter(|pod| pod.entry.is_ok() || self.mode.release == Release::Gone)
            .flat_map(|pod| pod.cookie.into_iter().chain(pod.armed_in()))
            .collect()
    }

    fn disarm_departed(&mut self, held: &HashSet<Cookie>, batch: &mut Batch) {
        for of in std::mem::take(&mut self.departed) {
            let cookie = of.armed.cookie;
            let fate = match self.claim_of(&of, held, batch) {
                Some(claim) if !batch.is_full() => self.fate(cookie, claim, batch),
                _ => Fate::Keep,
            };
            let done = match fate {
                Fate::Keep | Fate::CheckLink => false,
                Fate::HandOver => true,
                Fate::Disarm => self.disarm(cookie, Some(&of.name), batch),
            };
            if done {
                self.litter.sets |= self.dataplane.delete_rules(&of.armed.rules).is_err();
                (self.tell)(&of.name, PodEvent::Released);
            } else {
                self.departed.push(of);
            }
        }
    }

    fn claim_of(&self, of: &Departed, held: &HashSet<Cookie>, batch: &mut Batch) -> Option<Claim> {
        if !held.contains(&of.armed.cookie) {
            return Some(Claim::Nobody);
        }
        let record = batch.ask(self.dataplane.rules_of(of.armed.cookie))?;
        Some(Claim::Another {
            points_here: record.map(|rules| rules == of.armed.rules.record.rules),
        })
    }

    /// What is left is an earlier agent's. A pod whose namespace cannot be found now may be one of them.
    fn disarm_strangers(&mut self, held: &HashSet<Cookie>, batch: &mut Batch) {
        let mut wanted = self.pods.values().filter(|pod| pod.entry.is_ok());
        let claim = if wanted.any(|pod| pod.cookie.is_none()) {
            Claim::Unknown
        } else {
            Claim::Nobody
        };
        let lingering: HashSet<Cookie> = self.departed.iter().map(|of| of.armed.cookie).collect();
        for cookie in batch.ask(self.dataplane.armed()).unwrap_or_default() {
            if batch.is_full() || held.contains(&cookie) || lingering.contains(&cookie) {
                continue;
            }
            if self.fate(cookie, claim, batch) == Fate::Disarm {
                self.litter.sets |= self.disarm(cookie, None, batch);
            }
        }
    }

    /// Disarms a namespace; whether that succeeded.
    fn disarm(&mut self, cookie: Cookie, name: Option<&PodName>, batch: &mut Batch) -> bool {
        // Its counts go with it.
        self.decisions.take(cookie, &self.dataplane.counts(cookie));
        let done = batch.ask(self.dataplane.disarm(cookie)).is_some();
        if done {
            let pod = name.map(ToString::to_string);
            tracing::info!(pod, cookie, "disarmed");
            batch.disarmed += 1;
            self.decisions.forget(cookie);
            self.litter.connections.insert(cookie);
        }
        done
    }

    /// Removes what is left of namespaces that are not armed, and sets that no record points to.
    fn clean_up(&mut self, batch: &mut Batch) {
        for cookie in std::mem::take(&mut self.litter.states) {
            let record = batch.ask(self.dataplane.rules_of(cookie));
            let again = match record {
                Some(Some(_)) => false, // it was armed meanwhile
                Some(None) => batch.ask(self.dataplane.disarm(cookie)).is_none(),
                None => true,
            };
            if again {
                self.litter.states.insert(cookie);
            }
        }
        let mut connections = HashSet::new();
        for cookie in std::mem::take(&mut self.litter.connections) {
            match batch.ask(self.dataplane.rules_of(cookie)) {
                Some(Some(_)) => {} // it was armed again, and has new ones
                Some(None) => drop(connections.insert(cookie)),
                None => drop(self.litter.connections.insert(cookie)),
            }
        }
        let failed = |forgotten: Option<()>| forgotten.is_none();
        if !connections.is_empty() && failed(batch.ask(self.dataplane.forget_all(&connections))) {
            self.litter.connections.extend(connections);
        }
        if self.litter.sets && batch.ask(self.dataplane.sweep_rules()).is_some() {
            self.litter.sets = false;
        }
    }
}
