//! Which nodes a pod's own constraints leave it, as the scheduler reads them (k8s.io/component-helpers,
//! `scheduling/corev1`): its node selector, its required node affinity, its tolerations.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};

use super::node::required;
use crate::Reason;
use crate::cluster::{Facts, Node, holds};

/// Refuses a pod that may run on no node where its gate would be opened. The reason names the constraint that excludes the
/// last of them.
pub(super) fn permit(pod: &Pod, nodes: &BTreeMap<String, Node>) -> Result<(), Reason> {
    let Some(spec) = &pod.spec else {
        return Ok(());
    };
    let usable = || nodes.values().filter(|node| node.is_usable());
    if usable().any(|node| {
        CONSTRAINTS
            .iter()
            .all(|one| (one.admits)(spec, &node.facts))
    }) {
        return Ok(());
    }
    let mut left: Vec<_> = usable().collect();
    for constraint in &CONSTRAINTS {
        let before = left.clone();
        left.retain(|node| (constraint.admits)(spec, &node.facts));
        if left.is_empty() {
            let constraint = match before.first() {
                Some(node) => (constraint.named)(spec, &node.facts),
                None => "all nodes are labelled as unable to, or have no agent".to_owned(),
            };
            return Err(Reason::NoUsableNode { constraint });
        }
    }
    Ok(())
}

/// One thing by which a pod chooses its nodes.
struct Constraint {
    admits: fn(&PodSpec, &Facts) -> bool,
    /// In words, with a node that it excludes.
    named: fn(&PodSpec, &Facts) -> String,
}

const CONSTRAINTS: [Constraint; 3] = [
    Constraint {
        admits: |spec, node| {
            let wanted = spec.node_selector.iter().flatten();
            let has = |(key, value): (&String, &String)| node.labels.get(key) == Some(value);
            wanted.into_iter().all(has)
        },
        named: |spec, _| {
            let wanted = spec.node_selector.iter().flatten();
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
        admits: |spec, node| {
            required(spec).is_none_or(|required| {
                // Terms are alternatives.
                let mut terms = required.node_selector_terms.iter();
                terms.any(|term| term_admits(term, node))
            })
        },
        named: |spec, _| {
            let terms = required(spec).map(|required| required.node_selector_terms.iter());
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
        admits: |spec, node| untolerated(spec, node).is_none(),
        named: |spec, node| {
            let taint = untolerated(spec, node).map_or_else(String::new, |taint| {
                let value = taint.value.as_deref().unwrap_or_default();
                format!(" {}={value}:{}", taint.key, taint.effect)
            });
            format!("it does not tolerate the taints of all that are left, such as{taint}")
        },
    },
];

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
