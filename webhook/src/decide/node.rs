//! Whether somebody will open the pod's gate where it may run. A pod that must run on one node, as a DaemonSet's pods must,
//! is decided for that node.

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorTerm, Pod, PodSpec};

use super::{architecture, constraints};
use crate::Reason;
use crate::cluster::{ARCHITECTURES, Cluster, Node};

/// Refuses a pod whose gate no agent would open. Pods that may run on several nodes wait for `percent` of the agents.
pub(super) fn permit(pod: &Pod, cluster: &Cluster, percent: u8) -> Result<(), Reason> {
    if !cluster.opens_any() {
        return Err(Reason::NoAgent);
    }
    if !ARCHITECTURES
        .iter()
        .any(|one| architecture::admits(pod, one))
    {
        return Err(Reason::UnsupportedArchitecture);
    }
    let (Some(nodes), Some(share)) = (&cluster.nodes, cluster.share()) else {
        return Ok(());
    };
    if let Some(node) = bound(pod) {
        return permit_on(node, nodes.get(node), cluster);
    }
    if !share.reaches(percent) {
        return Err(Reason::TooFewAgents { share, percent });
    }
    constraints::permit(pod, nodes, &cluster.volumes)
}

fn permit_on(name: &str, node: Option<&Node>, cluster: &Cluster) -> Result<(), Reason> {
    let opens = cluster.opens(name);
    let name = name.to_owned();
    if node.is_some_and(Node::is_unsupported) {
        Err(Reason::UnsupportedNode { node: name })
    } else if opens {
        Ok(())
    } else {
        Err(Reason::NoAgentOnNode { node: name })
    }
}

/// The one node that the pod can run on, if its specification says so by name.
pub(crate) fn bound(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    by_affinity(required(spec)?)
}

/// The nodes that the pod requires by its affinity, if it does.
pub(super) fn required(spec: &PodSpec) -> Option<&NodeSelector> {
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()
}

/// The DaemonSet controller writes the node's name into every term.
fn by_affinity(required: &NodeSelector) -> Option<&str> {
    let mut names = required.node_selector_terms.iter().map(by_term);
    let first = names.next()??;
    names.all(|name| name == Some(first)).then_some(first)
}

fn by_term(term: &NodeSelectorTerm) -> Option<&str> {
    let fields = term.match_fields.as_ref()?;
    let field = fields
        .iter()
        .find(|field| field.key == "metadata.name" && field.operator == "In")?;
    match field.values.as_deref()? {
        [node] => Some(node),
        _ => None,
    }
}
