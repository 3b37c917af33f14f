//! What follows from what programs tell. Whatever a pod does in namespaces that it makes, by the thousand if it likes, costs
//! a look at that pod once a second, and no other pod its turn.

use std::time::{Duration, Instant};

use sidestep_ebpf_common::{
    Sighting,
    sighting::{QuietKey, Seen},
};

use super::{Pod, Reconciler};
use crate::{
    clock::Now,
    dataplane::Dataplane,
    pods::wanted::PodName,
    sandbox::{Node, Owner},
};

/// How long programs are silent about a namespace that is no pod's, or no pod's own.
const MUTE: Duration = Duration::from_mins(10);
/// Between looks at a pod that is not armed yet.
const EAGER: Duration = Duration::from_millis(50);
/// Between looks at one that is: its sandbox may have been made anew.
const CALM: Duration = Duration::from_secs(1);
/// Between looks at all that wait.
const SWEEP: Duration = Duration::from_millis(100);

impl<D: Dataplane, N: Node> Reconciler<D, N> {
    /// A program came upon a namespace: perhaps one of a pod's that waits for it.
    pub fn seen(&mut self, sighting: &Sighting) {
        let now = self.node.now();
        if let Some(name) = self.holder(sighting.cookie, None).cloned() {
            // The proxy listens: by now the pod has its addresses and its processes their resolv.conf.
            if Seen::from_number(sighting.seen) == Some(Seen::Active) {
                self.arm(&name, None, now);
            }
            return;
        }
        match self.node.owner(sighting.pid) {
            Owner::Pod(uid) => match self.pod_of(&uid).cloned() {
                Some(name) => self.seen_of(&name, sighting, now),
                // One that the API server has not told of yet is looked for when it does.
                None => self.mute(sighting),
            },
            Owner::Other => self.mute(sighting),
            // Whose it was nobody knows. It may have been a pod's that waits.
            Owner::Gone => self.look_for_all(sighting.at, now),
        }
    }

    /// Sightings were lost: any pod that waits may have been among them.
    pub fn missed(&mut self) {
        let now = self.node.now();
        self.look_for_all(now.kernel, now);
    }

    /// Does what was put off, as far as it is due.
    pub(super) fn catch_up(&mut self, now: Now) {
        let due: Vec<_> = self
            .pods
            .iter_mut()
            .filter_map(|(name, pod)| Some((name.clone(), pod.pace.take_due(now.at)?)))
            .collect();
        for (name, at) in due {
            self.arm(&name, Some(at), now);
        }
        if let Some(at) = self.sweep.take_due(now.at) {
            self.arm_waiting(at, now);
        }
    }

    /// When something that was put off is due.
    pub(super) fn next_catch_up(&self) -> Option<Instant> {
        let pods = self.pods.values().filter_map(|pod| pod.pace.due());
        pods.chain(self.sweep.due()).min()
    }

    /// A process of this pod, in a namespace in which no pod is armed.
    fn seen_of(&mut self, name: &PodName, sighting: &Sighting, now: Now) {
        let Some(pod) = self.pods.get_mut(name) else {
            return;
        };
        let interval = if pod.armed.is_some() { CALM } else { EAGER };
        if !pod.pace.allows(now.at, interval, sighting.at) {
            return;
        }
        self.arm(name, Some(sighting.at), now);
        let pod = self.pods.get(name);
        let armed = pod.and_then(Pod::armed_in);
        let kept = pod.is_some_and(|pod| pod.keeper.is_some());
        if kept || armed.is_some_and(|cookie| cookie != sighting.cookie) {
            // Another version's, or a namespace that the pod's processes made: should that become the sandbox's one day, others
            // than these tell of it.
            self.mute(sighting);
        }
    }

    fn mute(&mut self, sighting: &Sighting) {
        let who = QuietKey {
            cookie: sighting.cookie,
            cgroup: sighting.cgroup,
        };
        self.dataplane.mute(who, MUTE);
    }

    fn look_for_all(&mut self, at: u64, now: Now) {
        if self.sweep.allows(now.at, SWEEP, at) {
            self.arm_waiting(at, now);
        }
    }

    /// Also those whose namespace is gone: their sandbox may be there again.
    fn arm_waiting(&mut self, at: u64, now: Now) {
        let waits = |pod: &Pod| {
            let gone = |cookie| matches!(self.dataplane.is_attached(cookie), Ok(false));
            pod.waiting.is_some() || pod.armed_in().is_some_and(gone)
        };
        for name in self.names(waits) {
            self.arm(&name, Some(at), now);
        }
    }
}
