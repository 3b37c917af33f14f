//! What is told of pods, and what is taken out of the kernel.

use sidestep_kernel::netns::Cookie;
use std::collections::HashSet;

use super::{Happening, Pod, Reconciler, Release};
use crate::{
    dataplane::{Dataplane, DataplaneError},
    pods::wanted::{Left, Place, PodName, Wanted},
    sandbox::Sandboxes,
    shortcut::ShortcutStatus,
    status::{PodState, PodStatus},
};

impl<D: Dataplane, S: Sandboxes> Reconciler<D, S> {
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

    /// The shortcut, for people.
    pub fn shortcut(&self) -> ShortcutStatus {
        self.dataplane.shortcut()
    }

    /// The state of every pod, and how many namespaces are armed that no pod wants any more.
    pub fn states(&self) -> (Vec<PodState>, usize) {
        let states = self.pods.values().map(|pod| self.state(pod)).collect();
        (states, self.departed.len())
    }

    fn state(&self, pod: &Pod) -> PodState {
        let cookie = pod.armed.as_ref().map(|armed| armed.cookie);
        match (&pod.entry, cookie) {
            (Err(_), _) => PodState::Left,
            (Ok(Wanted { ended: true, .. }), None) => PodState::Ended,
            (Ok(_), None) => PodState::Pending,
            (Ok(_), Some(cookie)) if matches!(self.dataplane.is_active(cookie), Ok(true)) => {
                PodState::Active
            }
            (Ok(_), Some(_)) => PodState::Armed,
        }
    }

    fn describe(&self, name: &PodName, pod: &Pod, flows: usize) -> PodStatus {
        let cookie = pod.armed.as_ref().map(|armed| armed.cookie);
        let left = pod.entry.as_ref().err().map(Left::to_string);
        let failed = pod.failure.as_ref().map(|failure| failure.error.clone());
        let waits = pod.waiting.map(|_| {
            "none of its processes is in a network namespace of the pod's own yet".to_owned()
        });
        let wanted: Option<&Wanted> = pod.entry.as_ref().ok();
        let counts = cookie.map(|c| self.dataplane.counts(c)).unwrap_or_default();
        PodStatus {
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            netns: wanted.and_then(|wanted| match &wanted.place {
                Place::Named(name) => Some(name.clone()),
                Place::Cgroup(_) => None,
            }),
            uid: wanted.and_then(|wanted| match &wanted.place {
                Place::Named(_) => None,
                Place::Cgroup(uid) => Some(uid.to_string()),
            }),
            cookie,
            state: self.state(pod),
            reason: left.or(failed).or(waits),
            policy: wanted.map(|w| w.policy.to_string()),
            programmed_us: pod
                .armed
                .as_ref()
                .map(|armed| u64::try_from(armed.took.as_micros()).unwrap_or(u64::MAX)),
            reaction_us: pod.reaction_us,
            rows: counts
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(row, count)| (row.name().to_owned(), count))
                .collect(),
            flows,
        }
    }

    /// Disarms every namespace that may be let go: of pods removed or left, gone, or of an earlier agent. In doubt a
    /// namespace stays armed: what is disarmed goes around the proxy.
    pub(super) fn disarm_unwanted(&mut self) -> Result<(), DataplaneError> {
        for (name, pod) in &mut self.pods {
            let Some(cookie) = pod.armed.as_ref().map(|armed| armed.cookie) else {
                continue;
            };
            let elsewhere = pod.cookie != Some(cookie);
            let unwanted = pod.entry.is_err() && self.manner.release == Release::Unwanted;
            let gone = unwanted || elsewhere && !self.dataplane.is_attached(cookie)?;
            let armed = pod.armed.take_if(|_| gone);
            self.departed
                .extend(armed.map(|armed| (name.clone(), armed)));
        }
        self.disarm_departed()?;
        self.disarm_strangers()
    }

    /// The namespaces of pods that are wanted, armed or to be armed.
    fn held(&self) -> HashSet<Cookie> {
        let pods = self.pods.values();
        pods.filter(|pod| pod.entry.is_ok() || self.manner.release == Release::Gone)
            .flat_map(|pod| {
                pod.cookie
                    .into_iter()
                    .chain(pod.armed.as_ref().map(|a| a.cookie))
            })
            .collect()
    }

    /// Disarms what departed pods had, when it may be.
    pub(super) fn disarm_departed(&mut self) -> Result<(), DataplaneError> {
        if self.departed.is_empty() {
            return Ok(());
        }
        let held = self.held();
        let mut index = 0;
        while let Some((name, armed)) = self.departed.get(index) {
            // Another pod may have taken the namespace over.
            let taken = held.contains(&armed.cookie);
            let at_its_end = self.manner.release == Release::Gone;
            if at_its_end && !taken && self.dataplane.is_attached(armed.cookie)? {
                index += 1;
                continue;
            }
            if !taken {
                tracing::info!(pod = %name, cookie = armed.cookie, "disarmed");
                self.dataplane.disarm(armed.cookie)?;
            }
            self.dataplane.delete_rules(&armed.rules)?;
            (self.tell)(name, Happening::Released);
            self.departed.swap_remove(index);
        }
        Ok(())
    }

    /// What is left is an earlier agent's. A pod whose namespace cannot be found now may be one of them.
    fn disarm_strangers(&mut self) -> Result<(), DataplaneError> {
        let held = self.held();
        let mut wanted = self.pods.values().filter(|pod| pod.entry.is_ok());
        let lost = wanted.any(|pod| pod.cookie.is_none());
        let lingering: HashSet<Cookie> = self.departed.iter().map(|(_, a)| a.cookie).collect();
        let mut disarmed = false;
        for cookie in self.dataplane.armed()? {
            if held.contains(&cookie) || lingering.contains(&cookie) {
                continue;
            }
            let doubtful = lost || self.manner.release == Release::Gone;
            if !(doubtful && self.dataplane.is_attached(cookie)?) {
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
}
