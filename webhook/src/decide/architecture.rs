//! On nodes of which architecture a pod may run, by its own node selector and required node affinity.

use k8s_openapi::api::core::v1::{NodeSelectorTerm, Pod};
use sidestep_contract::keys;

use super::node;
use crate::cluster::holds;

/// The labels by which kubelet tells a node's architecture. The second is the first one's old name.
const LABELS: [&str; 2] = [keys::ARCHITECTURE, "beta.kubernetes.io/arch"];

/// Whether the pod may run on a node of this architecture, as far as only the architecture matters.
pub(super) fn admits(pod: &Pod, architecture: &str) -> bool {
    let Some(spec) = &pod.spec else {
        return true;
    };
    let mut selected = LABELS
        .iter()
        .filter_map(|label| spec.node_selector.as_ref()?.get(*label));
    selected.all(|value| value == architecture)
        && node::required(spec).is_none_or(|required| {
            // Terms are alternatives.
            required
                .node_selector_terms
                .iter()
                .any(|term| term_admits(term, architecture))
        })
}

/// Every node with an architecture has the labels.
fn term_admits(term: &NodeSelectorTerm, architecture: &str) -> bool {
    term.match_expressions
        .iter()
        .flatten()
        .filter(|requirement| LABELS.contains(&requirement.key.as_str()))
        .all(|requirement| holds(requirement, Some(architecture)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::ARCHITECTURES;

    fn admitted(spec: &Value) -> Vec<&'static str> {
        let mut spec = spec.clone();
        spec["containers"] = json!([]);
        let pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
        let all = ARCHITECTURES.into_iter();
        all.filter(|one| admits(&pod, one)).collect()
    }

    /// A required affinity with these terms, each a list of expressions.
    fn required(terms: &[Value]) -> Value {
        let terms: Vec<Value> = terms
            .iter()
            .map(|expressions| json!({"matchExpressions": expressions}))
            .collect();
        let required = json!({"nodeSelectorTerms": terms});
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}})
    }

    fn arch(operator: &str, values: &[&str]) -> Value {
        json!({"key": "kubernetes.io/arch", "operator": operator, "values": values})
    }

    #[test]
    fn a_node_selector_admits_what_it_names() {
        assert_eq!(admitted(&json!({})), ["amd64", "arm64"]);
        for label in LABELS {
            let on = |value: &str| json!({"nodeSelector": {label: value, "pool": "s390x"}});
            assert_eq!(admitted(&on("arm64")), ["arm64"]);
            assert_eq!(admitted(&on("amd64")), ["amd64"]);
            assert!(admitted(&on("ppc64le")).is_empty());
        }
    }

    #[test]
    fn an_affinity_admits_what_one_of_its_terms_admits() {
        let other = json!({"key": "pool", "operator": "In", "values": ["s390x"]});
        for (terms, wanted) in [
            (vec![json!([arch("In", &["arm64"]), other])], vec!["arm64"]),
            (vec![json!([arch("In", &["s390x"])])], vec![]),
            (
                vec![
                    json!([arch("In", &["s390x"])]),
                    json!([arch("In", &["arm64", "ppc64le"])]),
                ],
                vec!["arm64"],
            ),
            (
                vec![json!([arch("In", &["s390x"])]), json!([other])],
                vec!["amd64", "arm64"],
            ),
            (vec![json!([arch("NotIn", &["amd64"])])], vec!["arm64"]),
            (vec![json!([arch("NotIn", &["amd64", "arm64"])])], vec![]),
            (vec![json!([arch("Exists", &[])])], vec!["amd64", "arm64"]),
            (vec![json!([arch("DoesNotExist", &[])])], vec![]),
            (
                vec![json!([
                    arch("NotIn", &["amd64"]),
                    arch("In", &["amd64", "s390x"])
                ])],
                vec![],
            ),
        ] {
            assert_eq!(admitted(&required(&terms)), wanted, "{terms:?}");
        }
    }

    #[test]
    fn selector_and_affinity_hold_together() {
        let mut spec = required(&[json!([arch("In", &["arm64", "s390x"])])]);
        spec["nodeSelector"] = json!({"kubernetes.io/arch": "s390x"});
        assert!(admitted(&spec).is_empty());
    }
}
