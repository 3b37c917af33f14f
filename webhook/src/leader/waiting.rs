//! Pods that wait at their gates on nodes without a ready agent, and gated pods that fit no node: which, for how long, and
//! what is due. Pure, except for [`act`].

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use sidestep_contract::istio_init;
pub use sidestep_contract::waiting::Place;
use tokio::time::Instant;

use crate::cluster::{Cluster, Node};

mod act;

pub(super) use act::{Attendant, attend};

/// After how long something is done about a pod that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The pod is reported; `None` means never.
    pub report: Option<Duration>,
    /// The pod is deleted if a controller replaces it; `None` means never.
    pub delete: Option<Duration>,
}

/// Most pods that are remembered. Pods beyond are not reported.
const MOST: usize = 10_000;

/// Most reports, and most deletions, in one round.
const REPORTS: usize = 10;
const DELETIONS: usize = 5;

/// A gated pod that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Where it waits.
    pub place: Place,
    /// Its resource version: only the pod as it was seen is deleted.
    pub version: Option<String>,
    /// Whether a controller replaces the pod, however often it is deleted. A Job does not: it counts deleted pods as
    /// failures, up to its `backoffLimit`.
    pub is_replaced: bool,
}

impl Waiting {
    /// The pod, if it waits and is not being deleted. What counts is the gate, not the label.
    pub fn of(pod: &Pod) -> Option<Self> {
        let is_gated = istio_init(pod).is_ok_and(|init| init.is_gate);
        let goes = pod.metadata.deletion_timestamp.is_some();
        (is_gated && !goes).then_some(())?;
        Some(Self {
            namespace: pod.namespace()?,
            name: pod.name_any(),
            uid: pod.uid()?,
            place: Place::of(pod)?,
            version: pod.resource_version(),
            is_replaced: pod
                .owner_references()
                .iter()
                .any(|owner| owner.controller == Some(true) && owner.kind != "Job"),
        })
    }
}

impl Waiting {
    /// Whether another pod in its place may find a better node.
    const fn may_go_elsewhere(&self) -> bool {
        self.is_replaced && matches!(self.place, Place::Gate(_))
    }
}

/// Whether it is Sidestep for which a pod waits in this place.
fn is_ours(place: &Place, cluster: &Cluster) -> bool {
    match place {
        Place::Gate(node) => !cluster.opens(node),
        Place::Nowhere(_) => {
            let mut nodes = cluster.nodes.iter().flat_map(BTreeMap::values);
            nodes.any(|node: &Node| !node.is_usable())
        }
    }
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Pods to report, each once.
    pub report: Vec<Waiting>,
    /// Pods to delete.
    pub delete: Vec<Waiting>,
    /// How many pods have waited long enough to be reported, now or before.
    pub overdue: usize,
}

/// The pods that wait. Times are this process's own, and count only while it is Sidestep that the pod waits for: an agent that
/// becomes ready on its node sets them back to zero.
#[derive(Debug, Default)]
pub struct Book {
    pods: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    pod: Waiting,
    since: Option<Instant>,
    /// By [`Work`].
    tasks: [Task; 2],
}

impl Entry {
    /// Whether it waits for the same: a pod that was scheduled at last begins anew.
    fn waits_as(&self, place: &Place) -> bool {
        std::mem::discriminant(&self.pod.place) == std::mem::discriminant(place)
    }
}

/// What there is to do about a pod.
#[derive(Clone, Copy, Debug)]
enum Work {
    Report,
    Delete,
}

#[derive(Clone, Copy, Debug, Default)]
struct Task {
    is_done: bool,
    tries: u32,
}

impl Book {
    /// Takes in the present state of a pod.
    pub fn see(&mut self, pod: &Pod) {
        let Some(waiting) = Waiting::of(pod) else {
            if let Some(uid) = &pod.metadata.uid {
                self.pods.remove(uid);
            }
            return;
        };
        let known = self.pods.get_mut(&waiting.uid);
        let same = known.filter(|entry| entry.waits_as(&waiting.place));
        if let Some(entry) = same {
            entry.pod = waiting;
        } else if self.pods.len() < MOST {
            let entry = Entry {
                pod: waiting.clone(),
                since: None,
                tasks: Default::default(),
            };
            self.pods.insert(waiting.uid, entry);
        }
    }

    /// Drops a pod that is gone or no longer waits.
    pub fn forget(&mut self, pod: &Pod) {
        if let Some(uid) = &pod.metadata.uid {
            self.pods.remove(uid);
        }
    }

    /// Drops all pods but these, after a new list.
    pub fn keep_only(&mut self, is_there: impl Fn(&str) -> bool) {
        self.pods.retain(|uid, _| is_there(uid));
    }

    /// Notes that the pod was reported.
    pub fn reported(&mut self, uid: &str) {
        self.done(uid, Work::Report);
    }

    /// Notes that the pod was deleted; it takes a while to disappear.
    pub fn deleted(&mut self, uid: &str) {
        self.done(uid, Work::Delete);
    }

    fn done(&mut self, uid: &str, work: Work) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.tasks[work as usize].is_done = true;
        }
    }

    /// The pods for which something is due, the longest wait first. Pods for which it failed before come last, so that they
    /// do not keep the others waiting.
    pub fn due(&mut self, cluster: &Cluster, patience: Patience, now: Instant) -> Due {
        let Patience { report, delete } = patience;
        let mut waits: Vec<(Duration, &mut Entry)> = Vec::new();
        for entry in self.pods.values_mut() {
            if is_ours(&entry.pod.place, cluster) {
                let since = *entry.since.get_or_insert(now);
                waits.push((now - since, entry));
            } else {
                entry.since = None;
            }
        }
        waits.sort_by_key(|(wait, _)| std::cmp::Reverse(*wait));
        let over = |limit: Option<Duration>, wait| limit.is_some_and(|limit| wait >= limit);
        let overdue = waits.iter().filter(|(wait, _)| over(report, *wait)).count();
        let late = waits.iter_mut().filter(|(wait, _)| over(report, *wait));
        let report = next(late.map(|(_, entry)| &mut **entry), Work::Report, REPORTS);
        let late = waits
            .iter_mut()
            .filter(|(wait, entry)| over(delete, *wait) && entry.pod.may_go_elsewhere());
        let delete = next(late.map(|(_, entry)| &mut **entry), Work::Delete, DELETIONS);
        Due {
            report,
            delete,
            overdue,
        }
    }
}

/// The first few pods for which it has not been done yet.
fn next<'a>(entries: impl Iterator<Item = &'a mut Entry>, work: Work, most: usize) -> Vec<Waiting> {
    let task = work as usize;
    let mut entries: Vec<_> = entries.filter(|entry| !entry.tasks[task].is_done).collect();
    entries.sort_by_key(|entry| entry.tasks[task].tries);
    let first = entries.into_iter().take(most);
    first
        .map(|entry| {
            let tries = &mut entry.tasks[task].tries;
            *tries = tries.saturating_add(1);
            entry.pod.clone()
        })
        .collect()
}
