//! Which pods are left to Istio whatever their `istio-init` says.

use k8s_openapi::api::core::v1::Pod;

use crate::{Leave, Policy, istio_init, keys, runtime};

impl Policy {
    /// The policy of a pod at admission: as Istio's injector wrote the pod, or with the gate that the webhook made.
    pub fn from_pod(pod: &Pod) -> Result<Self, Leave> {
        refuse_at_admission(pod)?;
        istio_init(pod)?.policy
    }
}

/// Refuses a pod that must not be given a gate.
pub fn refuse_at_admission(pod: &Pod) -> Result<(), Leave> {
    refuse_for_life(pod)?;
    runtime::refuse_sandboxed(pod)?;
    match annotation(pod, keys::MULTUS_NETWORKS) {
        Some(value) if !value.trim().is_empty() => Err(Leave::SeveralNetworks {
            value: value.clone(),
        }),
        _ => Ok(()),
    }
}

/// Refuses a pod by what the API server lets nobody change once the pod exists. The agent asks no more than this of a pod
/// with a gate: annotations may have changed since, and what a runtime's name suggests was judged at admission.
pub fn refuse_for_life(pod: &Pod) -> Result<(), Leave> {
    let spec = pod.spec.as_ref();
    // The API server lets nobody add or change this one annotation.
    if annotation(pod, keys::MIRROR).is_some() {
        return Err(Leave::MirrorPod);
    }
    if spec.and_then(|spec| spec.host_network) == Some(true) {
        return Err(Leave::HostNetwork);
    }
    Ok(())
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a String> {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(key))
}
