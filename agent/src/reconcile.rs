//! From pods wanted to pods armed. Level-triggered: whatever is told is only a reason to compare what is wanted with what
//! is there, and whatever failed is tried again.

mod pod;
mod status;

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use sidestep_ebpf_common::{
    Sighting,
    sighting::{QuietKey, Seen},
};

use self::pod::Pod;
use crate::{
    arm::{self, ArmError, Armed},
    dataplane::{Cookie, Dataplane, DataplaneError, clock},
    sandbox::{Owner, PodUid, Sandboxes},
    source::{Entry, Left, Place, PodName, Wanted},
};

/// How long those in a namespace that are no pod's are not heard of.
const HUSH: Duration = Duration::from_mins(10);

/// How the reconciler goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Refuse raw TCP sockets.
    pub strict: bool,
    /// When a namespace is taken out of the kernel.
    pub release: Release,
    /// Between looks at a pod's link and pin.
    pub look: Duration,
    /// Between looks at a pod's addresses and name servers, which otherwise are read when something happens.
    pub study: Duration,
    /// How long a pod may be without a sandbox before somebody should know.
    pub patience: Duration,
}

/// When a namespace is taken out of the kernel. What is taken out goes around its proxy from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// As soon as no pod wants it.
    Unwanted,
    /// When it is gone. Whatever happens to the pod's object or its label, its processes stay captured to their end.
    Gone,
}

impl Manner {
    /// With Pod files: who removes one means it, and every pass looks at everything.
    pub const fn standalone(strict: bool) -> Self {
        Self {
            strict,
            release: Release::Unwanted,
            look: Duration::ZERO,
            study: Duration::ZERO,
            patience: Duration::MAX,
        }
    }

    /// On a Kubernetes node.
    pub const fn node(strict: bool, patience: Duration) -> Self {
        Self {
            strict,
            release: Release::Gone,
            look: Duration::from_secs(30),
            study: Duration::from_mins(10),
            patience,
        }
    }
}

/// What happened to a pod, for whoever counts or reports it.
#[derive(Debug)]
pub enum Happening<'a> {
    /// It is armed, for the first time or anew.
    Armed {
        /// How long programming it took.
        took: Duration,
        /// The time since its namespace was first seen; where nobody saw it, nothing.
        reaction: Option<Duration>,
    },
    /// It is not armed for this reason, told once.
    Failed(&'a ArmError),
    /// It is left alone, told once.
    Left(&'a Left),
    /// It has had no sandbox for a while, told once.
    NoSandbox,
    /// Its namespace is gone, or was let go.
    Released,
}

/// Hears what happens.
pub type Tell = Box<dyn FnMut(&PodName, Happening<'_>) + Send>;

/// All pods, and the dataplane they are in.
pub struct Reconciler<D, S> {
    dataplane: D,
    sandboxes: S,
    manner: Manner,
    pods: BTreeMap<PodName, Pod>,
    /// Armed, and no pod's any more, until they are out of the kernel.
    departed: Vec<(PodName, Armed)>,
    /// Whether sets of an earlier agent may be left.
    untidy: bool,
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
            untidy: true,
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
        if std::mem::take(&mut self.untidy) {
            // Pods taken over have new sets now; the old ones are nobody's.
            self.dataplane.sweep_rules()?;
        }
        Ok(())
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

    /// A program came upon a namespace: perhaps one of a pod's that waits for it.
    pub fn seen(&mut self, sighting: &Sighting) -> Result<(), DataplaneError> {
        let cookie = sighting.cookie;
        if let Some(name) = self.holder(cookie, None).cloned() {
            // The proxy listens: by now the pod has its addresses and its processes their resolv.conf.
            let active = Seen::from_number(sighting.seen) == Some(Seen::Active);
            return if active {
                self.arm(&name, None)
            } else {
                Ok(())
            };
        }
        let who = QuietKey {
            cookie,
            cgroup: sighting.cgroup,
        };
        match self.sandboxes.owner(sighting.pid) {
            Owner::Pod(uid) => match self.pod_of(&uid).cloned() {
                Some(name) => return self.arm(&name, Some(sighting.at)),
                // One that the API server has not told of yet is looked for when it does.
                None => self.dataplane.hush(who, HUSH),
            },
            Owner::Other => self.dataplane.hush(who, HUSH),
            // Whose it was nobody knows. It may have been a pod's that waits.
            Owner::Gone => {
                for name in self.names(|pod| pod.waiting.is_some()) {
                    self.arm(&name, Some(sighting.at))?;
                }
            }
        }
        Ok(())
    }

    /// Tries again what failed and is due, notices what went away, and restores what was lost. The answer names what
    /// was restored.
    pub fn pass(&mut self) -> Result<Vec<String>, DataplaneError> {
        let mut restored = self.dataplane.repair()?;
        let lost = !restored.is_empty();
        let now = Instant::now();
        for name in self.names(|pod| pod.is_due(now)) {
            let Some(pod) = self.pods.get_mut(&name) else {
                continue;
            };
            let study = pod.due(now, &self.manner);
            let cookie = pod.armed.as_ref().map(|armed| armed.cookie);
            let attached = cookie.is_some_and(|cookie| self.dataplane.is_attached(cookie));
            if let (true, Some(cookie)) = (attached, cookie) {
                restored.extend(self.dataplane.repair_pod(cookie)?);
            }
            if study || !attached {
                // Nothing is written where nothing changed; what may change unseen are addresses and name servers.
                self.arm(&name, None)?;
            }
            self.look_again(&name, lost);
        }
        self.disarm_unwanted()?;
        Ok(restored)
    }

    /// When the next pass is due for a pod that failed.
    pub fn next_retry(&self) -> Option<Instant> {
        self.pods.values().filter_map(Pod::retry).min()
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
        // What lost its link is armed again, what is gone is disarmed; then the records tell.
        self.pass()?;
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
                if pod.waits_too_long(self.manner.patience) {
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
            && (lost || !self.dataplane.is_active(armed.cookie))
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
