//! A decision as operations on the pod as it was sent. Pure. Only the fields that an operation names change: fields that no
//! type of ours knows stay, and a field that is already as decided gives no operation.

use json_patch::Patch;
use k8s_openapi::api::core::v1::Container;
use serde::Deserialize;
use serde_json::{Value, json};
use sidestep_contract::keys;

use crate::cluster::CONDITIONS;
use crate::decide::{Accelerate, Decision, Verdict};
use crate::edit::Edit;
use crate::inits::Inits;
use crate::settings::Delivery;

const LABELS: [&str; 2] = ["metadata", "labels"];
const ANNOTATIONS: [&str; 2] = ["metadata", "annotations"];
const INITS: [&str; 2] = ["spec", "initContainers"];
const TERMS: [&str; 5] = [
    "spec",
    "affinity",
    "nodeAffinity",
    "requiredDuringSchedulingIgnoredDuringExecution",
    "nodeSelectorTerms",
];

/// The operations that carry out `verdict` on the pod (or pod template) for which it was made.
pub fn patch(pod: &Value, verdict: &Verdict) -> Patch {
    let mut edit = Edit::new(pod);
    match &verdict.decision {
        Decision::Accelerate(accelerate) => accelerated(&mut edit, accelerate, verdict.inits),
        Decision::Leave(reason) => {
            match (verdict.inits, &verdict.restored) {
                (Inits::Both { gate, .. }, _) => edit.remove(&at(&INITS, &gate.to_string())),
                (Inits::Gate(index), Some(whole)) => {
                    make(&mut edit, &index.to_string(), whole);
                }
                _ => {}
            }
            edit.remove(&at(&ANNOTATIONS, keys::POLICY));
            edit.set(
                &at(&ANNOTATIONS, keys::LEFT_ALONE),
                reason.annotation().into(),
            );
        }
        Decision::Refuse(_) | Decision::Nothing(_) => {}
    }
    if verdict.takes_label {
        edit.remove(&at(&LABELS, keys::ACCELERATED));
    }
    edit.finish()
}

fn accelerated(edit: &mut Edit, accelerate: &Accelerate, inits: Inits) {
    let Accelerate {
        policy,
        gate,
        reach,
        delivery,
        avoid_unsupported,
    } = accelerate;
    if let Some(index) = one_istio_init(edit, inits) {
        make(edit, &index.to_string(), gate);
    }
    if *avoid_unsupported {
        avoid_unsupported_nodes(edit);
    }
    edit.set(&at(&LABELS, keys::ACCELERATED), "true".into());
    edit.remove(&at(&ANNOTATIONS, keys::LEFT_ALONE));
    edit.set(&at(&ANNOTATIONS, keys::POLICY), policy.to_string().into());
    edit.set(&at(&ANNOTATIONS, keys::SHORTCUT), reach.word().into());
    let into = at(&ANNOTATIONS, keys::SHORTCUT_INTO);
    if *delivery != Delivery::Proxy || edit.get(&into).is_some() {
        edit.set(&into, delivery.word().into());
    }
}

/// Leaves one `istio-init`. It is the fresh one, which holds what Istio wants now, in the place of the first one, so that it
/// still comes before the proxy.
fn one_istio_init(edit: &mut Edit, inits: Inits) -> Option<usize> {
    match inits {
        Inits::None | Inits::Many => None,
        Inits::Fresh(index) | Inits::Gate(index) => Some(index),
        Inits::Both { fresh, gate } => {
            let container = edit.get(&at(&INITS, &fresh.to_string()))?.clone();
            let (first, second) = (fresh.min(gate), fresh.max(gate));
            edit.remove(&at(&INITS, &second.to_string()));
            edit.set(&at(&INITS, &first.to_string()), container);
            Some(first)
        }
    }
}

/// Makes `after` of an `istio-init`, in the fields in which it and its gate differ, and in those by which other webhooks
/// change what a gate does.
fn make(edit: &mut Edit, index: &str, after: &Container) {
    let path = at(&INITS, index);
    let Some(Ok(before)) = edit.get(&path).map(Container::deserialize) else {
        return;
    };
    if before == *after {
        return;
    }
    let (before, after) = (json!(before), json!(after));
    edit.set(&at(&path, "name"), after["name"].clone());
    for field in ["command", "envFrom"] {
        if before.get(field).is_some() && after.get(field).is_none() {
            edit.remove(&at(&path, field));
        }
    }
    for field in ["args", "env"] {
        list(edit, &at(&path, field), before.get(field), after.get(field));
    }
    let context = after.get("securityContext");
    let place = at(&path, "securityContext");
    match context {
        Some(context) => edit.merge(&place, before.get("securityContext"), context),
        None => edit.remove(&place),
    }
}

/// Sets the list, by operations that append where `after` only adds to `before`.
fn list(edit: &mut Edit, path: &[&str], before: Option<&Value>, after: Option<&Value>) {
    let items = |list: Option<&Value>| list.and_then(Value::as_array).cloned().unwrap_or_default();
    let (before, after) = (items(before), items(after));
    if after.is_empty() && !before.is_empty() {
        return edit.remove(path);
    }
    let added = match after.strip_prefix(before.as_slice()) {
        Some(added) if !before.is_empty() || added.is_empty() => added,
        _ => return edit.set(path, Value::Array(after)),
    };
    for (index, item) in (before.len()..).zip(added) {
        edit.set(&at(path, &index.to_string()), item.clone());
    }
}

/// Terms are alternatives, so each gets the conditions. An empty term matches no node; with conditions it would match all
/// nodes that fulfil them, so it stays empty.
fn avoid_unsupported_nodes(edit: &mut Edit) {
    let conditions = CONDITIONS.each_ref().map(|one| json!(one));
    let Some(terms) = edit.get(&TERMS).and_then(Value::as_array) else {
        return edit.set(&TERMS, json!([{"matchExpressions": conditions}]));
    };
    let list = |term: &Value, field| term.get(field).and_then(Value::as_array).cloned();
    let terms: Vec<_> = terms
        .iter()
        .map(|term| {
            let expressions = list(term, "matchExpressions").unwrap_or_default();
            let fields = list(term, "matchFields").unwrap_or_default();
            (expressions, fields)
        })
        .collect();
    for (index, (expressions, fields)) in terms.into_iter().enumerate() {
        if expressions.is_empty() && fields.is_empty() {
            continue;
        }
        let index = index.to_string();
        let place = at(&at(&TERMS, &index), "matchExpressions");
        if expressions.is_empty() {
            edit.set(&place, json!(conditions));
            continue;
        }
        let missing = conditions.iter().filter(|one| !expressions.contains(one));
        for (number, condition) in (expressions.len()..).zip(missing) {
            edit.set(&at(&place, &number.to_string()), condition.clone());
        }
    }
}

fn at<'a>(path: &[&'a str], key: &'a str) -> Vec<&'a str> {
    [path, &[key]].concat()
}
