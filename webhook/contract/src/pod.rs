//! A pod to its policy.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use crate::{Leave, Policy, istio, keys, runtime};

impl Policy {
    /// The policy of a pod as Istio's injector left it, or as the webhook did: the gate gives the policy that the
    /// container had before.
    pub fn from_pod(pod: &Pod) -> Result<Self, Leave> {
        refuse_kinds_of_pod(pod)?;
        istio::policy(istio_init(pod)?)
    }

    /// The policy of a pod that has a gate, for who looks after it while it runs: from what the API server lets nobody change
    /// once the pod is there. What else keeps a pod from being given a gate (annotations, what a runtime's name suggests)
    /// is admission's to judge, and was judged.
    pub fn from_gated(pod: &Pod) -> Result<Self, Leave> {
        refuse_by_what_stays(pod)?;
        istio::policy(istio_init(pod)?)
    }
}

/// The pod's one `istio-init`.
pub fn istio_init(pod: &Pod) -> Result<&Container, Leave> {
    let containers = || init_containers(pod.spec.as_ref());
    let mut found = containers().filter(|container| container.name == keys::ISTIO_INIT);
    match (found.next(), found.count()) {
        (Some(container), 0) => Ok(container),
        (Some(_), more) => Err(Leave::SeveralIstioInit { count: more + 1 }),
        (None, _) if containers().any(|c| c.name == keys::ISTIO_VALIDATION) => Err(Leave::IstioCni),
        (None, _) => Err(Leave::NoIstioInit),
    }
}

fn init_containers(spec: Option<&PodSpec>) -> impl Iterator<Item = &Container> {
    spec.and_then(|spec| spec.init_containers.as_ref())
        .into_iter()
        .flatten()
}

fn refuse_kinds_of_pod(pod: &Pod) -> Result<(), Leave> {
    refuse_by_what_stays(pod)?;
    runtime::refuse_sandboxed(pod)?;
    match annotation(pod, keys::MULTUS_NETWORKS) {
        Some(value) if !value.trim().is_empty() => Err(Leave::SeveralNetworks {
            value: value.clone(),
        }),
        _ => Ok(()),
    }
}

fn refuse_by_what_stays(pod: &Pod) -> Result<(), Leave> {
    let spec = pod.spec.as_ref();
    // Of all annotations the API server lets nobody add or change this one.
    if annotation(pod, keys::MIRROR).is_some() {
        return Err(Leave::MirrorPod);
    }
    if spec.and_then(|spec| spec.host_network) == Some(true) {
        return Err(Leave::HostNetwork);
    }
    if spec.and_then(|spec| spec.host_users) == Some(false) {
        return Err(Leave::HostUsers);
    }
    Ok(())
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a String> {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(key))
}
