//! What is told of pods.

use std::{collections::BTreeMap, time::Duration};

use super::{Pod, Reconciler};
use crate::{
    dataplane::Dataplane,
    metrics::{Occupancy, Snapshot},
    pods::wanted::{LeaveReason, Place, PodName, Wanted},
    sandbox::Node,
    shortcut::ShortcutStatus,
    status::{PodState, PodStatus},
};

impl<D: Dataplane, N: Node> Reconciler<D, N> {
    /// Every pod, for people.
    pub fn status(&self) -> Vec<PodStatus> {
        let flows = self.dataplane.flows();
        let open = |pod: &Pod| pod.armed_in().and_then(|cookie| flows.get(&cookie));
        self.pods
            .iter()
            .map(|(name, pod)| self.describe(name, pod, open(pod).copied().unwrap_or(0)))
            .collect()
    }

    /// How many namespaces each version of Sidestep captures.
    pub fn layouts(&self) -> BTreeMap<String, usize> {
        self.dataplane.layouts()
    }

    /// The shortcut, for people.
    pub fn shortcut(&self) -> ShortcutStatus {
        self.dataplane.shortcut()
    }

    /// What metrics are made of.
    pub fn snapshot(&self) -> Snapshot {
        let pods = self.pods.values();
        let (armed, flows) = self.occupied;
        let room = self.dataplane.capacity();
        let occupancy = |map, entries, capacity| Occupancy {
            map,
            entries,
            capacity,
        };
        Snapshot {
            pods: pods.map(|pod| (self.state(pod), reason(pod))).collect(),
            lingering: self.departed.len(),
            layouts: self.layouts(),
            shortcut: self.shortcut(),
            decisions: self.decisions.total(),
            maps: vec![
                occupancy("pods", armed, room.pods),
                occupancy("flows", flows, room.flows),
            ],
            programs: self.dataplane.usage(),
        }
    }

    fn state(&self, pod: &Pod) -> PodState {
        let cookie = pod.armed_in();
        match (&pod.entry, cookie) {
            (Err(_), _) => PodState::Left,
            (Ok(_), _) if pod.keeper.is_some() => PodState::Kept,
            (Ok(Wanted { ended: true, .. }), None) => PodState::Ended,
            (Ok(_), None) => PodState::Pending,
            (Ok(_), Some(cookie)) if matches!(self.dataplane.is_active(cookie), Ok(true)) => {
                PodState::Active
            }
            (Ok(_), Some(_)) => PodState::Armed,
        }
    }

    fn describe(&self, name: &PodName, pod: &Pod, flows: usize) -> PodStatus {
        let cookie = pod.armed_in();
        let left = pod.entry.as_ref().err().map(LeaveReason::to_string);
        let failed = pod.failure.as_ref().map(|failure| failure.error.clone());
        let waits = pod.waiting.map(|_| {
            "none of its processes is in a network namespace of the pod's own yet".to_owned()
        });
        let kept = pod.keeper.as_ref().map(|keeper| {
            format!("programs of another version of Sidestep ({keeper}) capture it until it ends")
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
            reason: left.or(failed).or(waits).or(kept),
            policy: wanted.map(|w| w.policy.to_string()),
            programmed_us: cookie.map(|_| micros(pod.took)),
            reaction_us: pod.reaction.map(micros),
            rows: counts
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(row, count)| (row.name().to_owned(), count))
                .collect(),
            flows,
        }
    }
}

/// Why a pod is left or pending, in a word; nothing where it is neither.
fn reason(pod: &Pod) -> &'static str {
    match (&pod.entry, &pod.failure) {
        (Err(left), _) => left.reason(),
        (Ok(_), Some(failure)) => failure.reason,
        (Ok(_), None) if pod.is_overdue() => "no-sandbox",
        (Ok(_), None) => "",
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
