//! Pods that wait at their gates on nodes where nobody will open them: who waits, for how long, and what is due. Pure,
//! but for [`act`].

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use sidestep_contract::{gate, istio_init, keys};
use tokio::time::Instant;

use crate::cluster::Agents;

mod act;

pub(super) use act::{Attendant, attend};

/// When something is done about a pod that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// It is reported; `None` means never.
    pub report: Option<Duration>,
    /// It is deleted, if it has a controller that makes another one; `None` means never.
    pub delete: Option<Duration>,
}

/// How many pods are remembered at most. Those beyond are not reported, which is the least of such a cluster's problems.
const MOST: usize = 10_000;

/// At most so many reports, and so many deletions, at a time.
const REPORTS: usize = 10;
const DELETIONS: usize = 5;

/// A pod at its gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Where it waits.
    pub node: String,
    /// Whether somebody makes another one when it is gone.
    pub has_controller: bool,
}

impl Waiting {
    /// The pod, if its gate is running and it is not on its way out. What counts is the gate, not the label.
    pub fn of(pod: &Pod) -> Option<Self> {
        let is_gated = istio_init(pod).is_ok_and(gate::is_gate);
        let statuses = pod.status.as_ref()?.init_container_statuses.as_ref()?;
        let is_running = statuses.iter().any(|status| {
            let state = status.state.as_ref();
            status.name == keys::ISTIO_INIT && state.is_some_and(|state| state.running.is_some())
        });
        let goes = pod.metadata.deletion_timestamp.is_some();
        (is_gated && is_running && !goes).then_some(())?;
        Some(Self {
            namespace: pod.namespace()?,
            name: pod.name_any(),
            uid: pod.uid()?,
            node: pod.spec.as_ref()?.node_name.clone()?,
            has_controller: pod
                .owner_references()
                .iter()
                .any(|owner| owner.controller == Some(true)),
        })
    }
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// To be reported, the first time.
    pub report: Vec<Waiting>,
    /// To be deleted.
    pub delete: Vec<Waiting>,
    /// How many have waited for long enough to be reported, now or before.
    pub overdue: usize,
}

/// Who waits. Times are this process's own, and count only while no agent is ready on the pod's node: an agent that is
/// restarted starts them again.
#[derive(Debug, Default)]
pub struct Book {
    pods: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    pod: Waiting,
    since: Option<Instant>,
    is_reported: bool,
    is_deleted: bool,
}

impl Book {
    /// A pod as it is now.
    pub fn see(&mut self, pod: &Pod) {
        let Some(waiting) = Waiting::of(pod) else {
            if let Some(uid) = &pod.metadata.uid {
                self.pods.remove(uid);
            }
            return;
        };
        if let Some(entry) = self.pods.get_mut(&waiting.uid) {
            entry.pod = waiting;
        } else if self.pods.len() < MOST {
            let entry = Entry {
                pod: waiting.clone(),
                since: None,
                is_reported: false,
                is_deleted: false,
            };
            self.pods.insert(waiting.uid, entry);
        }
    }

    /// A pod that is gone, or waits no more.
    pub fn forget(&mut self, pod: &Pod) {
        if let Some(uid) = &pod.metadata.uid {
            self.pods.remove(uid);
        }
    }

    /// After listing anew: all but these are gone.
    pub fn keep_only(&mut self, is_there: impl Fn(&str) -> bool) {
        self.pods.retain(|uid, _| is_there(uid));
    }

    /// It was reported.
    pub fn reported(&mut self, uid: &str) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.is_reported = true;
        }
    }

    /// It was deleted, and takes a while to go.
    pub fn deleted(&mut self, uid: &str) {
        if let Some(entry) = self.pods.get_mut(uid) {
            entry.is_deleted = true;
        }
    }

    /// What is due, the longest wait first.
    pub fn due(&mut self, agents: &Agents, patience: Patience, now: Instant) -> Due {
        let mut waits: Vec<(Duration, &Entry)> = Vec::new();
        for entry in self.pods.values_mut() {
            if agents.on(&entry.pod.node) {
                entry.since = None;
            } else {
                let since = *entry.since.get_or_insert(now);
                waits.push((now - since, entry));
            }
        }
        waits.sort_by_key(|(wait, _)| std::cmp::Reverse(*wait));
        let over = |limit: Option<Duration>, wait| limit.is_some_and(|limit| wait >= limit);
        let overdue = || {
            let all = waits.iter();
            all.filter(|(wait, _)| over(patience.report, *wait))
        };
        let pods = |(_, entry): &(Duration, &Entry)| entry.pod.clone();
        let unreported = overdue().filter(|(_, entry)| !entry.is_reported);
        let deletable = waits.iter().filter(|(wait, entry)| {
            over(patience.delete, *wait) && entry.pod.has_controller && !entry.is_deleted
        });
        Due {
            report: unreported.take(REPORTS).map(pods).collect(),
            delete: deletable.take(DELETIONS).map(pods).collect(),
            overdue: overdue().count(),
        }
    }
}
