//! The pods of a node, as the API server tells them. Pure.
//!
//! What a pod's gate says is read once and kept for the pod's uid, and of the rest of the pod only what the API server lets
//! nobody change decides: nothing that somebody writes to the pod later changes what happens to its connections, nor does
//! a new agent that sees the pod for the first time.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::core::v1::Pod;
use sidestep_contract::{RawSockets, istio_init, refuse_at_admission, refuse_for_life};

use super::Step;
use crate::{
    pods::wanted::{Entry, LeaveReason, Place, PodName, PodUid, Wanted, name_servers},
    rules::Allowed,
};

/// One pod, as it was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedPod {
    /// Its name, which another pod may get later.
    pub name: PodName,
    /// Its uid.
    pub uid: PodUid,
    /// What is to be done about it.
    pub entry: Entry,
}

impl ObservedPod {
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
            kept.allowed = kept.allowed.narrowed(now.allowed);
            kept.ended |= now.ended;
        }
    }
}

fn entry(pod: &Pod, uid: &PodUid) -> Entry {
    let init = istio_init(pod)?;
    if !init.is_gate {
        // Istio's own rules are in charge; the reason may be more telling than that.
        refuse_at_admission(pod)?;
        init.policy?;
        return Err(LeaveReason::NoGate);
    }
    refuse_for_life(pod)?;
    let policy = init.policy?;
    let status = pod.status.as_ref();
    let addresses = status.and_then(|status| status.pod_ips.as_ref());
    let addresses = addresses.into_iter().flatten();
    let phase = status.and_then(|status| status.phase.as_deref());
    Ok(Wanted {
        place: Place::Cgroup(uid.clone()),
        policy,
        allowed: Allowed::of(pod),
        raw_sockets: RawSockets::of(pod),
        name_servers: name_servers(pod),
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
    All(Vec<ObservedPod>),
    /// One is new, or other than it was.
    One(Box<ObservedPod>),
    /// One is no more, or has our label no more.
    Gone(PodName, PodUid),
}

/// Every pod that was told of.
#[derive(Debug, Default)]
pub struct Pods {
    known: BTreeMap<PodName, ObservedPod>,
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
                if before == Some(&*told) {
                    return Step::Nothing;
                }
                let name = told.name.clone();
                self.known.insert(name.clone(), *told);
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const UID: &str = "0f3a6a0e-1c2b-4d5e-8f90-abcdef012345";
    const OTHER: &str = "1f3a6a0e-1c2b-4d5e-8f90-abcdef012345";

    fn manifest(name: &str, uid: &str, args: &[&str]) -> Value {
        let all = ["istio-iptables", "-p", "15001", "-z", "15006", "-u", "1337"];
        let gate = [
            "--run-validation",
            "--skip-rule-apply",
            "--probe-timeout=300s",
        ];
        let args: Vec<&str> = all.iter().chain(args).chain(&gate).copied().collect();
        json!({
            "metadata": {"namespace": "demo", "name": name, "uid": uid},
            "spec": {"containers": [], "initContainers": [{
                "name": "istio-init",
                "args": args,
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "capabilities": {"drop": ["ALL"]},
                    "runAsNonRoot": true,
                    "runAsUser": 1337,
                },
            }]},
        })
    }

    fn told(manifest: Value) -> ObservedPod {
        let pod: Pod = serde_json::from_value(manifest).expect("a pod");
        ObservedPod::read(&pod).expect("a pod with a uid")
    }

    fn gated(name: &str, uid: &str) -> ObservedPod {
        told(manifest(name, uid, &[]))
    }

    fn one(told: &ObservedPod) -> Change {
        Change::One(Box::new(told.clone()))
    }

    fn names(pods: &Pods) -> Vec<&str> {
        pods.entries().map(|(name, _)| name.name.as_str()).collect()
    }

    #[test]
    fn a_gated_pod_is_wanted_by_its_own_arguments() {
        let told = told(manifest("web", UID, &["-o", "9999"]));
        let wanted = told.entry.expect("a pod that is taken");
        assert_eq!(
            wanted.place,
            Place::Cgroup(PodUid::new(UID).expect("a uid"))
        );
        assert!(
            wanted.policy.to_string().contains("9999"),
            "{}",
            wanted.policy
        );
        assert!(!wanted.ended);
    }

    #[test]
    fn a_pod_without_a_gate_is_left_whatever_its_label_says() {
        let mut manifest = manifest("web", UID, &[]);
        manifest["metadata"]["labels"] = json!({"sidestep.dev/accelerated": "true"});
        let init = &mut manifest["spec"]["initContainers"][0];
        init["securityContext"]["runAsUser"] = json!(0);
        let almost = told(manifest.clone()).entry;
        assert_eq!(
            almost.map_err(|left| left.reason()).err(),
            Some("foreign-validation")
        );
        manifest["spec"]["initContainers"][0]["args"] = json!(["istio-iptables", "-u", "1337"]);
        assert_eq!(told(manifest).entry, Err(LeaveReason::NoGate));
    }

    #[test]
    fn an_annotation_with_a_namespace_means_nothing_here() {
        let mut manifest = manifest("web", UID, &[]);
        manifest["metadata"]["annotations"] = json!({"sidestep.dev/netns": "/proc/1/ns/net"});
        assert_eq!(told(manifest), gated("web", UID));
    }

    #[test]
    fn what_anybody_may_write_to_a_pod_with_a_gate_decides_nothing() {
        let mut manifest = manifest("web", UID, &[]);
        manifest["metadata"]["annotations"] = json!({
            "k8s.v1.cni.cncf.io/networks": "macvlan",
            "sidecar.istio.io/interceptionMode": "NONE",
        });
        assert_eq!(told(manifest.clone()), gated("web", UID));
        // Nor does what a later version of Sidestep would guess.
        manifest["spec"]["overhead"] = json!({"memory": "120Mi"});
        manifest["spec"]["runtimeClassName"] = json!("kata-fc");
        assert_eq!(told(manifest.clone()), gated("web", UID));
        manifest["spec"]["hostNetwork"] = json!(true);
        let left = told(manifest).entry.expect_err("a pod that is left");
        assert_eq!(left.reason(), "host-network");
    }

    #[test]
    fn the_policy_of_a_uid_never_changes() {
        let mut pods = Pods::default();
        let first = told(manifest("web", UID, &["-o", "9999"]));
        pods.take(one(&first));
        // As only somebody could who goes around the API server's own checks.
        assert_eq!(pods.take(one(&gated("web", UID))), Step::Nothing);
        assert_eq!(pods.entry(&first.name), Some(&first.entry));
        pods.take(Change::All(vec![gated("web", UID)]));
        assert_eq!(pods.entry(&first.name), Some(&first.entry));

        let another = gated("web", OTHER);
        assert_eq!(pods.take(one(&another)), Step::Apply(another.name.clone()));
        assert_eq!(pods.entry(&another.name), Some(&another.entry));
    }

    #[test]
    fn addresses_and_the_end_are_followed_and_an_end_is_final() {
        let mut pods = Pods::default();
        let name = gated("web", UID).name;
        pods.take(one(&gated("web", UID)));
        let mut later = manifest("web", UID, &[]);
        later["status"] = json!({"phase": "Succeeded", "podIPs": [{"ip": "10.0.0.7"}]});
        assert_eq!(pods.take(one(&told(later))), Step::Apply(name.clone()));
        let wanted = pods.entry(&name).and_then(|entry| entry.as_ref().ok());
        let wanted = wanted.expect("a pod that is taken");
        assert!(wanted.ended);
        assert_eq!(
            wanted.addresses,
            ["10.0.0.7".parse::<IpAddr>().expect("an address")]
        );

        pods.take(one(&gated("web", UID)));
        let wanted = pods.entry(&name).and_then(|entry| entry.as_ref().ok());
        assert!(wanted.is_some_and(|wanted| wanted.ended));
    }

    #[test]
    fn what_is_told_again_is_no_change() {
        let mut pods = Pods::default();
        pods.take(one(&gated("web", UID)));
        assert_eq!(pods.take(one(&gated("web", UID))), Step::Nothing);
    }

    #[test]
    fn a_list_replaces_everything() {
        let mut pods = Pods::default();
        assert!(!pods.are_listed());
        pods.take(Change::All(vec![gated("a", UID), gated("b", OTHER)]));
        assert!(pods.are_listed());
        assert_eq!(names(&pods), ["a", "b"]);
        assert_eq!(
            pods.take(Change::All(vec![gated("b", OTHER)])),
            Step::Everything
        );
        assert_eq!(names(&pods), ["b"]);
        pods.take(Change::All(Vec::new()));
        assert!(names(&pods).is_empty());
    }

    #[test]
    fn the_end_of_a_pod_is_not_that_of_the_next_with_its_name() {
        let mut pods = Pods::default();
        let (old, new) = (gated("web", UID), gated("web", OTHER));
        pods.take(one(&old));
        pods.take(one(&new));
        assert_eq!(pods.take(Change::Gone(old.name, old.uid)), Step::Nothing);
        assert_eq!(names(&pods), ["web"]);
        let step = pods.take(Change::Gone(new.name.clone(), new.uid));
        assert_eq!(step, Step::Forget(new.name));
    }
}
