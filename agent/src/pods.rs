//! The pods of a node, as the API server tells them. Pure.
//!
//! What a pod's gate says is read once and kept for the pod's uid: nothing that somebody writes to the pod later changes
//! what happens to its connections.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::Pod;
use sidestep_contract::{Policy, gate, istio_init};

use crate::{
    sandbox::PodUid,
    source::{self, Entry, Left, Place, PodName, Wanted},
};

/// One pod, as it was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Its name, which another pod may get later.
    pub name: PodName,
    /// Its uid.
    pub uid: PodUid,
    /// What is to be done about it.
    pub entry: Entry,
}

impl Told {
    /// Reads a pod. `None` for one without name or uid, which no API server tells of.
    pub fn read(pod: &Pod) -> Option<Self> {
        let uid = PodUid::new(pod.metadata.uid.as_deref()?)?;
        let name = PodName {
            namespace: pod.metadata.namespace.clone()?,
            name: pod.metadata.name.clone()?,
        };
        let entry = entry(pod, &uid);
        Some(Self { name, uid, entry })
    }

    /// Keeps what was read of the same pod before, but for what may change.
    fn latch(&mut self, before: &Self) {
        if before.uid != self.uid {
            return;
        }
        let now = std::mem::replace(&mut self.entry, before.entry.clone());
        if let (Ok(kept), Ok(now)) = (&mut self.entry, now) {
            kept.addresses = now.addresses;
            kept.ended |= now.ended;
        }
    }
}

fn entry(pod: &Pod, uid: &PodUid) -> Entry {
    let policy = Policy::from_pod(pod)?;
    if !gate::is_gate(istio_init(pod)?) {
        return Err(Left::NoGate);
    }
    let status = pod.status.as_ref();
    let addresses = status.and_then(|status| status.pod_ips.as_ref());
    let addresses = addresses.into_iter().flatten();
    let phase = status.and_then(|status| status.phase.as_deref());
    Ok(Wanted {
        place: Place::Cgroup(uid.clone()),
        policy,
        name_servers: source::name_servers(pod),
        addresses: addresses
            .filter_map(|ip| ip.ip.parse::<IpAddr>().ok())
            .collect(),
        ended: matches!(phase, Some("Succeeded" | "Failed")),
    })
}

/// What is told.
#[derive(Debug)]
pub enum Change {
    /// These are all pods there are.
    All(Vec<Told>),
    /// One is new, or other than it was.
    One(Told),
    /// One is no more, or has our label no more.
    Gone(PodName, PodUid),
}

/// What a change means.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Everything may be other than it was.
    Everything,
    /// This pod is new or has changed.
    Apply(PodName),
    /// This pod is not wanted any more.
    Forget(PodName),
    /// Nothing.
    Nothing,
}

/// Every pod that was told of.
#[derive(Debug, Default)]
pub struct Pods {
    known: BTreeMap<PodName, Told>,
    listed: bool,
}

impl Pods {
    /// Takes a change in.
    pub fn take(&mut self, change: Change) -> Step {
        match change {
            Change::All(all) => {
                let before = std::mem::take(&mut self.known);
                self.listed = true;
                for mut told in all {
                    if let Some(before) = before.get(&told.name) {
                        told.latch(before);
                    }
                    self.known.insert(told.name.clone(), told);
                }
                Step::Everything
            }
            Change::One(mut told) => {
                let before = self.known.get(&told.name);
                if let Some(before) = before {
                    told.latch(before);
                }
                if before == Some(&told) {
                    return Step::Nothing;
                }
                let name = told.name.clone();
                self.known.insert(name.clone(), told);
                Step::Apply(name)
            }
            Change::Gone(name, uid) => {
                if self.uid(&name) == Some(&uid) {
                    self.known.remove(&name);
                    Step::Forget(name)
                } else {
                    Step::Nothing // another pod has its name already
                }
            }
        }
    }

    /// Whether all pods were told of once.
    pub const fn are_listed(&self) -> bool {
        self.listed
    }

    /// Every pod and what is to be done about it.
    pub fn entries(&self) -> impl Iterator<Item = (&PodName, &Entry)> {
        self.known.iter().map(|(name, told)| (name, &told.entry))
    }

    /// One pod's.
    pub fn entry(&self, name: &PodName) -> Option<&Entry> {
        self.known.get(name).map(|told| &told.entry)
    }

    /// A pod's uid.
    pub fn uid(&self, name: &PodName) -> Option<&PodUid> {
        self.known.get(name).map(|told| &told.uid)
    }
}
