//! Our label is on pods whose `istio-init` is the gate, from their creation on, and on no others.

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::Value;
use sidestep_contract::keys;

use crate::inits::{self, Inits};

/// What is wrong with a new pod, or with a change to one.
pub(super) fn objection(operation: &str, new: &Value, old: &Value) -> Option<String> {
    match operation {
        "CREATE" if label(new).is_some() && !is_gated(new) => Some(format!(
            "label {} is only for pods whose istio-init is Sidestep's gate",
            keys::ACCELERATED
        )),
        "UPDATE" if label(new) != label(old) => Some(format!(
            "label {} cannot be changed after the pod's creation",
            keys::ACCELERATED
        )),
        _ => None,
    }
}

fn label(pod: &Value) -> Option<&Value> {
    pod.get("metadata")?.get("labels")?.get(keys::ACCELERATED)
}

fn is_gated(pod: &Value) -> bool {
    Pod::deserialize(pod).is_ok_and(|pod| matches!(inits::of(&pod), (Inits::Gate(_), _)))
}
