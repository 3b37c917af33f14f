//! From pods wanted to pods armed. Level-triggered: whatever is told is only a reason to compare what is wanted with what
//! is there, and whatever failed is tried again.
//!
//! [`plan`] says what to do next and is pure; [`take`] does it, in the one safe order; this file and those beside it keep what
//! is known of each pod and decide whose turn it is. The machine is behind [`Node`], the kernel's maps and links behind
//! [`Dataplane`], and the clock is read once a turn.

mod connections;
mod decisions;
mod flows;
mod mode;
mod pace;
mod plan;
mod pod;
mod release;
mod sighting;
mod status;
pub mod take;

use std::{
    collections::{BTreeMap, HashSet},
    time::Instant,
};

use sidestep_contract::RawSockets;
use sidestep_kernel::netns::Cookie;

use self::{
    decisions::Decisions,
    pace::Pace,
    plan::{Entrance, Visit},
    pod::Pod,
    release::Departed,
    take::{Litter, Wish},
};
pub use self::{
    mode::{Mode, PodEvent, Release, Tell},
    take::{ArmError, Armed},
};
use crate::{
    clock::Now,
    dataplane::{Dataplane, DataplaneError, Repairs},
    pods::wanted::{Entry, Place, PodName, PodUid, Wanted},
    sandbox::{Node, Sandbox},
};

/// All pods, and the dataplane they are in.
pub struct Reconciler<D, N> {
    dataplane: D,
    node: N,
    mode: Mode,
    pods: BTreeMap<PodName, Pod>,
    /// Armed, and no pod's any more, until they are out of the kernel.
    departed: Vec<Departed>,
    litter: Litter,
    /// Not all that may be let go fitted into the last turn.
    more_to_release: bool,
    /// Of looks at all that wait.
    sweep: Pace,
    /// When captured connections are looked at next.
    flows_due: Option<Instant>,
    /// Armed namespaces and captured connections, at that look.
    occupied: (usize, usize),
    decisions: Decisions,
    tell: Tell,
}

impl<D: Dataplane, N: Node> Reconciler<D, N> {
    /// Starts with whatever the dataplane has; the first [`Self::want`] decides what of it stays.
    pub fn new(dataplane: D, node: N, mode: Mode, tell: Tell) -> Self {
        Self {
            dataplane,
            node,
            mode,
            pods: BTreeMap::new(),
            departed: Vec::new(),
            litter: Litter::default(),
            more_to_release: false,
            sweep: Pace::default(),
            flows_due: None,
            occupied: (0, 0),
            decisions: Decisions::default(),
            tell,
        }
    }

    /// Replaces what is wanted, and acts on it. What goes wrong holds up nothing else, and is tried again by [`Self::pass`].
    pub fn want<'a>(
        &mut self,
        wanted: impl IntoIterator<Item = (&'a PodName, &'a Entry)>,
    ) -> Result<(), DataplaneError> {
        let mut gone: HashSet<PodName> = self.pods.keys().cloned().collect();
        for (name, entry) in wanted {
            gone.remove(name);
            self.apply(name, entry);
        }
        for name in gone {
            self.forget(&name);
        }
        self.release().into_iter().next().map_or(Ok(()), Err)
    }

    /// One pod that is new, or of which something new is said.
    pub fn apply(&mut self, name: &PodName, entry: &Entry) {
        let now = self.node.now();
        match self.pods.get_mut(name) {
            Some(pod) if pod.entry == *entry => return,
            Some(pod) => {
                let armed = pod.change(entry, now.at);
                self.depart(name, armed);
            }
            None => {
                let pod = Pod::new(name, entry, now.at, &self.mode);
                self.pods.insert(name.clone(), pod);
            }
        }
        match entry {
            Err(left) => (self.tell)(name, PodEvent::Left(left)),
            Ok(_) => self.arm(name, None, now),
        }
    }

    /// One pod that is not wanted any more. What is armed of it goes with the next pass.
    pub fn forget(&mut self, name: &PodName) {
        let armed = self.pods.remove(name).and_then(|pod| pod.armed);
        self.depart(name, armed);
    }

    fn depart(&mut self, name: &PodName, armed: Option<Armed>) {
        let name = name.clone();
        self.departed
            .extend(armed.map(|armed| Departed { name, armed }));
    }

    /// Tries again what failed and is due, notices what went away, and restores what was lost. What goes wrong holds up
    /// nothing else.
    pub fn pass(&mut self) -> Repairs {
        let mut done = self.dataplane.repair();
        let lost = !done.restored.is_empty();
        let now = self.node.now();
        for name in self.names(|pod| pod.is_due(now.at, &self.mode)) {
            done.note(self.visit(&name, lost, now));
        }
        self.catch_up(now);
        done.note(self.look_at_flows(now.at));
        done.errors.extend(self.release());
        done
    }

    /// A pod's turn.
    fn visit(&mut self, name: &PodName, lost: bool, now: Now) -> Result<(), DataplaneError> {
        let Some(pod) = self.pods.get_mut(name) else {
            return Ok(());
        };
        let step = match plan::visit(pod, None, now.at, &self.mode) {
            Visit::CheckLink(cookie) => {
                let attached = self.dataplane.is_attached(cookie);
                let attached = attached.inspect_err(|_| pod.retry_later(now.at))?;
                plan::visit(pod, Some(attached), now.at, &self.mode)
            }
            step => step,
        };
        if step == Visit::Find {
            self.arm(name, None, now);
        }
        self.look_for_proxy(name, lost);
        if let Some(pod) = self.pods.get_mut(name) {
            pod.looked(now.at, &self.mode);
        }
        Ok(())
    }

    /// When the next pass is due for a pod that failed, or for what was put off.
    pub fn next_retry(&self) -> Option<Instant> {
        if self.more_to_release {
            return Some(self.node.now().at);
        }
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
        loop {
            if let Some(error) = self.pass().errors.into_iter().next() {
                return Err(error);
            }
            if !self.more_to_release {
                break;
            }
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

    /// Looks at a pod and arms it where that is due; `seen` is the stamp of the sighting that asks for it.
    fn arm(&mut self, name: &PodName, seen: Option<u64>, now: Now) {
        let began = self.node.now();
        let answer = self.try_arm(name, now);
        let ended = self.node.now();
        let Some(pod) = self.pods.get_mut(name) else {
            return;
        };
        match answer {
            Ok(Some(armed)) => {
                pod.took = ended.at.saturating_duration_since(began.at);
                pod.reaction = seen.map(|at| ended.since(at));
                pod.failure = None;
                tracing::info!(pod = %name, us = pod.took.as_micros(), "armed");
                let event = PodEvent::Armed {
                    took: pod.took,
                    reaction: pod.reaction,
                };
                (self.tell)(name, event);
                let cookie = armed.cookie;
                let old = pod.armed.replace(armed);
                // Where its namespace was made anew the old one's entries go.
                self.depart(name, old.filter(|old| old.cookie != cookie));
            }
            // Left to Istio, or as it should be, or not there yet.
            Ok(None) => {
                pod.failure = None;
                if pod.waits_too_long(now.at, self.mode.patience) {
                    tracing::warn!(pod = %name, "found no sandbox for a pod; will look again");
                    (self.tell)(name, PodEvent::NoSandbox);
                }
            }
            Err(error) => {
                if pod.fail(&error, ended.at) {
                    tracing::warn!(pod = %name, %error, "not armed; will retry");
                    (self.tell)(name, PodEvent::Failed(&error));
                }
            }
        }
    }

    fn try_arm(&mut self, name: &PodName, now: Now) -> Result<Option<Armed>, ArmError> {
        let Some(pod) = self.pods.get_mut(name) else {
            return Ok(None);
        };
        pod.cookie = None;
        let Ok(wanted) = &pod.entry else {
            return Ok(None);
        };
        let sandbox = self.node.find(wanted)?;
        let cookie = sandbox.as_ref().map(Sandbox::cookie).transpose()?;
        let keeper = cookie.and_then(|cookie| self.dataplane.keeper(cookie));
        let holder = cookie.and_then(|cookie| self.holder(cookie, Some(name)).cloned());
        let Some(pod) = self.pods.get_mut(name) else {
            return Ok(None);
        };
        let Ok(wanted) = &pod.entry else {
            return Ok(None);
        };
        pod.cookie = cookie;
        pod.keeper = None;
        let sandbox = match (plan::enter(cookie, keeper, holder), sandbox) {
            (Entrance::LookInside, Some(sandbox)) => sandbox,
            (Entrance::Refuse(other), _) => {
                pod.waiting = None;
                return Err(ArmError::Taken {
                    netns: wanted.place.to_string(),
                    other: other.to_string(),
                });
            }
            (Entrance::Leave(keeper), _) => {
                pod.waiting = None;
                pod.keeper = Some(keeper);
                let old = pod.armed.take();
                self.depart(name, old);
                return Ok(None);
            }
            (Entrance::Wait, _) | (_, None) => {
                pod.waits(now.at);
                return Ok(None);
            }
        };
        let wish = Wish {
            policy: &wanted.policy,
            allowed: wanted.allowed,
            namespace: &name.namespace,
            strict: self.mode.strict && wanted.raw_sockets == RawSockets::Refuse,
        };
        pod.waiting = None;
        take::arm(
            &mut self.dataplane,
            &sandbox,
            &wish,
            pod.armed.as_ref(),
            &mut self.litter,
        )
    }

    /// Looks for the proxy of a pod that is not active yet, and of every pod where something was `lost` for a while.
    fn look_for_proxy(&mut self, name: &PodName, lost: bool) {
        if let Some(pod) = self.pods.get(name)
            && let (Ok(wanted), Some(cookie)) = (&pod.entry, pod.armed_in())
            && plan::look_for_proxy(self.dataplane.is_active(cookie).ok(), lost)
            && let Ok(Some(sandbox)) = self.node.find(wanted)
            && sandbox.cookie().ok() == Some(cookie)
        {
            // Failing to look is no reason to do anything: the next pass looks again.
            let _unseen = take::look_again(&mut self.dataplane, &sandbox, &wanted.policy, cookie);
        }
    }

    /// A pod that is armed in this namespace.
    fn holder(&self, cookie: Cookie, except: Option<&PodName>) -> Option<&PodName> {
        let mut others = self.pods.iter().filter(|(name, _)| Some(*name) != except);
        others
            .find(|(_, pod)| pod.armed_in() == Some(cookie))
            .map(|(name, _)| name)
    }
}
