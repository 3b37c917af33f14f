//! Which pods are left to Istio whatever their `istio-init` says.

use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::Value;

use crate::{Leave, Policy, RawSockets, istio_init, keys, runtime};

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
    refuse_networks(pod)?;
    refuse_forwarding(pod)
}

/// Packets that a pod forwards, for containers in networks of its own, were never a socket's of the pod: Istio's rules take them
/// for inbound ones, and no program of ours sees them. Only who may change the pod's network can make it forward.
fn refuse_forwarding(pod: &Pod) -> Result<(), Leave> {
    if RawSockets::of(pod) == RawSockets::Allow {
        return Ok(());
    }
    let spec = pod.spec.iter();
    let mut containers = spec
        .flat_map(|spec| {
            spec.init_containers
                .iter()
                .flatten()
                .chain(&spec.containers)
        })
        .filter(|container| !keys::OF_THE_MESH.contains(&container.name.as_str()));
    let found = containers.find_map(|container| Some((container, network_right(container)?)));
    match found {
        None => Ok(()),
        Some((container, right)) => Err(Leave::MayForward {
            container: container.name.clone(),
            right,
        }),
    }
}

/// By what a container may change the pod's network.
fn network_right(container: &Container) -> Option<&'static str> {
    let context = container.security_context.as_ref()?;
    if context.privileged == Some(true) {
        return Some("privileged");
    }
    let added = context.capabilities.as_ref()?.add.as_ref()?;
    ["NET_ADMIN", "ALL"].into_iter().find(|right| {
        added.iter().any(|name| {
            let name = name.to_ascii_uppercase();
            name.strip_prefix("CAP_").unwrap_or(&name) == *right
        })
    })
}

/// An armed pod's captured connections leave from the address of its default route; by a further interface they would have
/// had another.
fn refuse_networks(pod: &Pod) -> Result<(), Leave> {
    type Adds = fn(&str) -> bool;
    let adds: [(&str, Adds); 2] = [
        (keys::MULTUS_NETWORKS, adds_network),
        (keys::GKE_INTERFACES, adds_interface),
    ];
    for (key, adds) in adds {
        if let Some(value) = annotation(pod, key).filter(|value| adds(value)) {
            return Err(Leave::SeveralNetworks {
                place: format!("annotation {key}"),
                value: value.clone(),
            });
        }
    }
    Ok(())
}

/// Whether Multus' annotation names a network besides istio-cni's, by which Multus runs that plugin and adds no interface. It is a
/// JSON list of `{"name", "namespace", "interface"}`, or a comma-separated one of `NAMESPACE/NAME@INTERFACE`.
fn adds_network(value: &str) -> bool {
    if let Ok(networks) = serde_json::from_str::<Vec<Value>>(value) {
        return networks.iter().any(|one| one["name"] != keys::ISTIO_CNI);
    }
    let names = value.split(',').map(|network| {
        let name = network.rsplit('/').next().unwrap_or_default();
        name.split('@').next().unwrap_or_default().trim()
    });
    let mut further = names.filter(|name| *name != keys::ISTIO_CNI && !name.is_empty());
    further.next().is_some()
}

/// Whether GKE's annotation names an interface besides one of the network `default`. What cannot be read counts as one.
fn adds_interface(value: &str) -> bool {
    let interfaces: Vec<Value> = match serde_json::from_str(value) {
        Ok(interfaces) => interfaces,
        Err(_) => return !value.trim().is_empty(),
    };
    interfaces.len() > 1 || interfaces.iter().any(|one| one["network"] != "default")
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
