//! From pods wanted to pods armed. Level-triggered: whatever is told is only a reason to compare what is wanted with what
//! is there, and whatever failed is tried again.

mod flows;
mod hearing;
mod manner;
mod pace;
mod pod;
mod status;

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

pub use self::manner::{Happening, Manner, Release, Tell};
use sidestep_kernel::netns::Cookie;

use self::{pace::Pace, pod::Pod};
use crate::{
    arm::{self, ArmError, Armed},
    dataplane::{Dataplane, DataplaneError, Repairs, clock},
    pods::wanted::{Entry, Place, PodName, PodUid, Wanted},
    sandbox::Sandboxes,
};

/// All pods, and the dataplane they are in.
pub struct Reconciler<D, S> {
    dataplane: D,
    sandboxes: S,
    manner: Manner,
    pods: BTreeMap<PodName, Pod>,
    /// Armed, and no pod's any more, until they are out of the kernel.
    departed: Vec<(PodName, Armed)>,
    /// Whether there are sets that nobody uses any more and nobody remembers: an earlier agent's, of a pod that has sets of
    /// this one now.
    untidy: bool,
    /// Of looks at all that wait.
    sweep: Pace,
    /// When captured connections are looked at next.
    flows_due: Option<Instant>,
    tell: Tell,
}

impl<D: Dataplane, S: Sandboxes> Reconciler<D, S> {
    /// Starts with whatever the dataplane has; the first [`Self::want`] decides what of it stays.
    pub fn new(dataplane: D, sandboxes: S, manner: Manner, tell: Tell) -> Self {
        Self {
            dataplane,
            sandboxes,
            manner,
            pods: BTreeMap::new(),
            departed: Vec::new(),
            untidy: false,
            sweep: Pace::default(),
            flows_due: None,
            tell,
        }
    }

    /// Replaces what is wanted, and acts on it.
    pub fn want<'a>(
        &mut self,
        wanted: impl IntoIterator<Item = (&'a PodName, &'a Entry)>,
    ) -> Result<(), DataplaneError> {
        let mut gone: HashSet<PodName> = self.pods.keys().cloned().collect();
        for (name, entry) in wanted {
            gone.remove(name);
            self.apply(name, entry)?;
        }
        for name in gone {
            self.forget(&name);
        }
        self.disarm_unwanted()?;
        self.tidy()
    }

    /// One pod that is new, or of which something new is said.
    pub fn apply(&mut self, name: &PodName, entry: &Entry) -> Result<(), DataplaneError> {
        let known = self.pods.get_mut(name);
        match known {
            Some(pod) if pod.entry == *entry => return Ok(()),
            Some(pod) => {
                let other = pod.is_another(entry);
                let armed = pod.change(entry, other);
                self.departed
                    .extend(armed.map(|armed| (name.clone(), armed)));
            }
            None => {
                let pod = Pod::new(name, entry, self.manner.study);
                self.pods.insert(name.clone(), pod);
            }
        }
        match entry {
            Err(left) => {
                (self.tell)(name, Happening::Left(left));
                Ok(())
            }
            Ok(_) => self.arm(name, None),
        }
    }

    /// One pod that is not wanted any more. What is armed of it goes with the next pass.
    pub fn forget(&mut self, name: &PodName) {
        let armed = self.pods.remove(name).and_then(|pod| pod.armed);
        self.departed
            .extend(armed.map(|armed| (name.clone(), armed)));
    }

    /// Tries again what failed and is due, notices what went away, and restores what was lost. What goes wrong holds up
    /// nothing else.
    pub fn pass(&mut self) -> Repairs {
        let mut done = self.dataplane.repair();
        let lost = !done.restored.is_empty();
        let now = Instant::now();
        for name in self.names(|pod| pod.is_due(now, &self.manner)) {
            done.note(self.look_at(&name, now, lost));
        }
        done.note(self.catch_up(now));
        done.note(self.look_at_flows(now));
        done.note(self.disarm_unwanted());
        done.note(self.tidy());
        done
    }

    fn look_at(&mut self, name: &PodName, now: Instant, lost: bool) -> Result<(), DataplaneError> {
        let Some(pod) = self.pods.get_mut(name) else {
            return Ok(());
        };
        let study = pod.due(now, &self.manner);
        let cookie = pod.armed.as_ref().map(|armed| armed.cookie);
        let attached = match cookie {
            Some(cookie) => self.dataplane.is_attached(cookie)?,
            None => false,
        };
        if study || !attached {
            // Nothing is written where nothing changed; what may change unseen are addresses and name servers.
            self.arm(name, None)?;
        }
        self.look_again(name, lost);
        Ok(())
    }

    /// Sweeps the sets of earlier agents, once a pod has sets of its own instead.
    fn tidy(&mut self) -> Result<(), DataplaneError> {
        if self.untidy {
            self.dataplane.sweep_rules()?;
            self.untidy = false;
        }
        Ok(())
    }

    /// When the next pass is due for a pod that failed, or for what was put off.
    pub fn next_retry(&self) -> Option<Instant> {
        let retries = self.pods.values().filter_map(Pod::retry);
        retries.chain(self.next_catch_up()).min()
    }

    /// The dataplane, for who has to meddle with it.
    pub const fn dataplane(&mut self) -> &mut D {
        &mut self.dataplane
    }

    /// Takes everything out of the kernel.
    pub fn remove(&mut self) -> Result<(), DataplaneError> {
        self.dataplane.remove()
    }

    /// Takes everything out of the kernel if no namespace is armed that still exists; whether that was so.
    pub fn remove_if_idle(&mut self) -> Result<bool, DataplaneError> {
        // What lost its link is armed again, what is gone is disarmed, pins are restored; then the records tell.
        if let Some(error) = self.pass().errors.into_iter().next() {
            return Err(error);
        }
        if !self.dataplane.armed()?.is_empty() {
            return Ok(false);
        }
        self.dataplane.remove().map(|()| true)
    }

    fn names(&self, which: impl Fn(&Pod) -> bool) -> Vec<PodName> {
        let pods = self.pods.iter().filter(|(_, pod)| which(pod));
        pods.map(|(name, _)| name.clone()).collect()
    }

    fn pod_of(&self, uid: &PodUid) -> Option<&PodName> {
        let mut pods = self.pods.iter();
        let found = pods.find(|(_, pod)| match &pod.entry {
            Ok(Wanted {
                place: Place::Cgroup(of),
                ended: false,
                ..
            }) => of == uid,
            Ok(_) | Err(_) => false,
        });
        found.map(|(name, _)| name)
    }

    fn arm(&mut self, name: &PodName, seen: Option<u64>) -> Result<(), DataplaneError> {
        let answer = self.try_arm(name);
        let Some(pod) = self.pods.get_mut(name) else {
            return Ok(());
        };
        match answer {
            Ok(Some(armed)) => {
                let took = armed.took;
                tracing::info!(pod = %name, us = took.as_micros(), "armed");
                let cookie = armed.cookie;
                self.untidy |= armed.took_over;
                let reaction = seen.map(|at| Duration::from_nanos(clock().saturating_sub(at)));
                pod.reaction_us = reaction.and_then(|r| u64::try_from(r.as_micros()).ok());
                let old = pod.armed.replace(armed);
                pod.failure = None;
                // Its namespace was made anew: the old one's entries go.
                if let Some(old) = old.filter(|old| old.cookie != cookie) {
                    self.departed.push((name.clone(), old));
                    if self.manner.release == Release::Unwanted {
                        self.disarm_departed()?;
                    }
                }
                (self.tell)(name, Happening::Armed { took, reaction });
            }
            // Left to Istio, or as it should be, or not there yet.
            Ok(None) => {
                pod.failure = None;
                if pod.waits_too_long(Instant::now(), self.manner.patience) {
                    tracing::warn!(pod = %name, "has no sandbox");
                    (self.tell)(name, Happening::NoSandbox);
                }
            }
            Err(error) => {
                if pod.fail(&error) {
                    tracing::warn!(pod = %name, %error, "not armed; trying again");
                    (self.tell)(name, Happening::Failed(&error));
                }
            }
        }
        Ok(())
    }

    /// Looks for the proxy of a pod that is not active yet, and of every pod where something was `lost` for a while.
    fn look_again(&mut self, name: &PodName, lost: bool) {
        if let Some(pod) = self.pods.get(name)
            && let (Ok(wanted), Some(armed)) = (&pod.entry, &pod.armed)
            && (lost || !matches!(self.dataplane.is_active(armed.cookie), Ok(true)))
            && let Ok(Some(sandbox)) = self.sandboxes.find(wanted)
            && sandbox.namespace.cookie().ok() == Some(armed.cookie)
        {
            // Failing to look is no reason to do anything: the next pass looks again.
            let _unseen =
                arm::look_again(&mut self.dataplane, &sandbox, &wanted.policy, armed.cookie);
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
        let Some(sandbox) = self.sandboxes.find(&wanted)? else {
            pod.waits(wanted.ended);
            return Ok(None);
        };
        pod.waiting = None;
        let cookie = sandbox.namespace.cookie()?;
        if let Some(other) = self.holder(cookie, Some(name)) {
            return Err(ArmError::Taken {
                netns: wanted.place.to_string(),
                other: other.to_string(),
            });
        }
        let Some(pod) = self.pods.get_mut(name) else {
            return Ok(None);
        };
        pod.cookie = Some(cookie);
        arm::arm(
            &mut self.dataplane,
            &sandbox,
            &wanted.policy,
            wanted.allowed,
            self.manner.strict,
            pod.armed.as_ref(),
        )
    }

    /// A pod that is armed in this namespace.
    fn holder(&self, cookie: Cookie, except: Option<&PodName>) -> Option<&PodName> {
        let mut others = self.pods.iter().filter(|(name, _)| Some(*name) != except);
        others
            .find(|(_, pod)| pod.armed.as_ref().is_some_and(|a| a.cookie == cookie))
            .map(|(name, _)| name)
    }
}
