//! Which nodes a pod's own constraints leave it, as the scheduler reads them (k8s.io/component-helpers,
//! `scheduling/corev1`): its node selector, its required node affinity, its volumes, its tolerations.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};

use super::node::required;
use crate::Reason;
use crate::cluster::{Facts, Node, Volumes, holds};

/// Refuses a pod that may run on no node where its gate would be opened. The reason names the constraint that excludes the
/// last of them.
pub(super) fn permit(
    pod: &Pod,
    nodes: &BTreeMap<String, Node>,
    volumes: &Volumes,
) -> Result<(), Reason> {
    let Some(spec) = &pod.spec else {
        return Ok(());
    };
    let pod = Choosy {
        spec,
        volumes: volumes.of(pod),
    };
    let usable = || nodes.values().filter(|node| node.is_usable());
    if usable().any(|node| {
        CONSTRAINTS
            .iter()
            .all(|one| (one.admits)(&pod, &node.facts))
    }) {
        return Ok(());
    }
    let mut left: Vec<_> = usable().collect();
    for constraint in &CONSTRAINTS {
        let before = left.clone();
        left.retain(|node| (constraint.admits)(&pod, &node.facts));
        if left.is_empty() {
            let constraint = match before.first() {
                Some(node) => (constraint.named)(&pod, &node.facts),
                None => "all nodes are labelled as unable to, or have no agent".to_owned(),
            };
            return Err(Reason::NoUsableNode { constraint });
        }
    }
    Ok(())
}

/// A pod, as far as it chooses its nodes.
struct Choosy<'a> {
    spec: &'a PodSpec,
    /// Claims of volumes that not every node reaches.
    volumes: Vec<(&'a str, &'a NodeSelector)>,
}

/// One thing by which a pod chooses its nodes.
struct Constraint {
    admits: fn(&Choosy<'_>, &Facts) -> bool,
    /// In words, with a node that it excludes.
    named: fn(&Choosy<'_>, &Facts) -> String,
}

const CONSTRAINTS: [Constraint; 4] = [
    Constraint {
        admits: |pod, node| {
            let wanted = pod.spec.node_selector.iter().flatten();
            let has = |(key, value): (&String, &String)| node.labels.get(key) == Some(value);
            wanted.into_iter().all(has)
        },
        named: |pod, _| {
            let wanted = pod.spec.node_selector.iter().flatten();
            let wanted: Vec<_> = wanted
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            format!(
                "its node selector ({}) excludes all of them",
                wanted.join(", ")
            )
        },
    },
    Constraint {
        admits: |pod, node| required(pod.spec).is_none_or(|required| admits(required, node)),
        named: |pod, _| {
            let terms = required(pod.spec).map(|required| required.node_selector_terms.iter());
            let requirements = terms
                .into_iter()
                .flatten()
                .filter_map(|term| term.match_expressions.as_ref());
            let keys: Vec<_> = requirements
                .flatten()
                .map(|one| format!("{} {}", one.key, one.operator))
                .collect();
            format!(
                "its required node affinity ({}) excludes all that are left",
                keys.join(", ")
            )
        },
    },
    Constraint {
        admits: |pod, node| unreached(pod, node).is_none(),
        named: |pod, node| {
            let claim = unreached(pod, node).unwrap_or_default();
            format!(
                "the volume of its claim {claim:?} is reached from none that are left, such as {}",
                node.name
            )
        },
    },
    Constraint {
        admits: |pod, node| untolerated(pod.spec, node).is_none(),
        named: |pod, node| {
            let taint = untolerated(pod.spec, node).map_or_else(String::new, |taint| {
                let value = taint.value.as_deref().unwrap_or_default();
                format!(" {}={value}:{}", taint.key, taint.effect)
            });
            format!("it does not tolerate the taints of all that are left, such as{taint}")
        },
    },
];

/// The first claim whose volume the node does not reach.
fn unreached<'a>(pod: &Choosy<'a>, node: &Facts) -> Option<&'a str> {
    let mut volumes = pod.volumes.iter();
    let found = volumes.find(|(_, from)| !admits(from, node));
    found.map(|(claim, _)| *claim)
}

/// Terms are alternatives.
fn admits(selector: &NodeSelector, node: &Facts) -> bool {
    let mut terms = selector.node_selector_terms.iter();
    terms.any(|term| term_admits(term, node))
}

/// A term without conditions admits nothing.
fn term_admits(term: &NodeSelectorTerm, node: &Facts) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // The name is a node's only field.
    let named = |one: &NodeSelectorRequirement| {
        holds(
            one,
            (one.key == "metadata.name").then_some(node.name.as_str()),
        )
    };
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|one| node.fulfils(one))
        && fields.iter().all(named)
}

/// A taint that keeps the pod off the node.
fn untolerated<'a>(spec: &PodSpec, node: &'a Facts) -> Option<&'a Taint> {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    node.taints
        .iter()
        .filter(|taint| taint.effect != "PreferNoSchedule")
        .find(|taint| !tolerations.iter().any(|one| tolerates(one, taint)))
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let word = |word: &Option<String>| word.clone().unwrap_or_default();
    let (effect, key, value) = (
        word(&toleration.effect),
        word(&toleration.key),
        word(&toleration.value),
    );
    (effect.is_empty() || effect == taint.effect)
        && (key.is_empty() || key == taint.key)
        && match word(&toleration.operator).as_str() {
            "" | "Equal" => value == word(&taint.value),
            "Exists" => true,
            _ => false,
        }
}
