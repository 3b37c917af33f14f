//! What follows from what programs tell. Whatever a pod does in namespaces that it makes, by the thousand if it likes, costs
//! a look at that pod once a second, and no other pod its turn.

use std::time::{Duration, Instant};

use sidestep_ebpf_common::{
    Sighting,
    sighting::{QuietKey, Seen},
};

use super::{Pod, Reconciler};
use crate::{
    dataplane::{Dataplane, DataplaneError, clock},
    pods::wanted::PodName,
    sandbox::{Owner, Sandboxes},
};

/// How long those in a namespace that are no pod's, or no pod's own, are not heard of.
const HUSH: Duration = Duration::from_mins(10);
/// Between looks at a pod that is not armed yet.
const EAGER: Duration = Duration::from_millis(50);
/// Between looks at one that is: its sandbox may have been made anew.
const CALM: Duration = Duration::from_secs(1);
/// Between looks at all that wait.
const SWEEP: Duration = Duration::from_millis(100);

impl<D: Dataplane, S: Sandboxes> Reconciler<D, S> {
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
        match self.sandboxes.owner(sighting.pid) {
            Owner::Pod(uid) => {
                if let Some(name) = self.pod_of(&uid).cloned() {
                    return self.seen_of(&name, sighting);
                }
                // One that the API server has not told of yet is looked for when it does.
                self.hush(sighting);
                Ok(())
            }
            Owner::Other => {
                self.hush(sighting);
                Ok(())
            }
            // Whose it was nobody knows. It may have been a pod's that waits.
            Owner::Gone => self.look_for_all(sighting.at),
        }
    }

    /// Sightings were lost: any pod that waits may have been among them.
    pub fn missed(&mut self) -> Result<(), DataplaneError> {
        self.look_for_all(clock())
    }

    /// Does what was put off, as far as it is due.
    pub(super) fn catch_up(&mut self, now: Instant) -> Result<(), DataplaneError> {
        let due: Vec<_> = self
            .pods
            .iter_mut()
            .filter_map(|(name, pod)| Some((name.clone(), pod.pace.take_due(now)?)))
            .collect();
        for (name, at) in due {
            self.arm(&name, Some(at))?;
        }
        match self.sweep.take_due(now) {
            Some(at) => self.arm_waiting(at),
            None => Ok(()),
        }
    }

    /// When something that was put off is due.
    pub(super) fn next_catch_up(&self) -> Option<Instant> {
        let pods = self.pods.values().filter_map(|pod| pod.pace.due());
        pods.chain(self.sweep.due()).min()
    }

    /// A process of this pod, in a namespace in which no pod is armed.
    fn seen_of(&mut self, name: &PodName, sighting: &Sighting) -> Result<(), DataplaneError> {
        let Some(pod) = self.pods.get_mut(name) else {
            return Ok(());
        };
        let interval = if pod.armed.is_some() { CALM } else { EAGER };
        if !pod.pace.allows(Instant::now(), interval, sighting.at) {
            return Ok(());
        }
        self.arm(name, Some(sighting.at))?;
        let pod = self.pods.get(name);
        let armed = pod.and_then(|pod| pod.armed.as_ref());
        if armed.is_some_and(|armed| armed.cookie != sighting.cookie) {
            // A namespace that the pod's processes made. Should it become the sandbox's one day, others than these tell of it.
            self.hush(sighting);
        }
        Ok(())
    }

    fn hush(&mut self, sighting: &Sighting) {
        let who = QuietKey {
            cookie: sighting.cookie,
            cgroup: sighting.cgroup,
        };
        self.dataplane.hush(who, HUSH);
    }

    fn look_for_all(&mut self, at: u64) -> Result<(), DataplaneError> {
        if self.sweep.allows(Instant::now(), SWEEP, at) {
            self.arm_waiting(at)?;
        }
        Ok(())
    }

    /// Also those whose namespace is gone: their sandbox may be there again.
    fn arm_waiting(&mut self, at: u64) -> Result<(), DataplaneError> {
        let waits = |pod: &Pod| {
            let armed = pod.armed.as_ref().map(|armed| armed.cookie);
            let gone = armed.is_some_and(|c| matches!(self.dataplane.is_attached(c), Ok(false)));
            pod.waiting.is_some() || gone
        };
        for name in self.names(waits) {
            self.arm(&name, Some(at))?;
        }
        Ok(())
    }
}
