//! Pods.

use std::fmt::Write as _;

use anyhow::bail;
use serde_json::json;

use super::view::{BEGINS, PodRow, State, View};
use super::{Shown, agent, word};
use crate::table::table;

/// The table of all pods that concern Sidestep.
pub(super) fn all(view: &View) -> Shown {
    let rows = view.pod_rows();
    let text = match rows.as_slice() {
        [] => "no pods with a sidecar that istio-init or istio-cni redirects\n".to_owned(),
        rows => text(rows),
    };
    Shown {
        text,
        attention: attention(&rows),
        json: json!({"pods": rows}),
    }
}

/// One pod with what its agent tells of it.
pub(super) fn one(view: &View, namespace: &str, name: &str) -> anyhow::Result<Shown> {
    let mut pods = view.pods.iter().zip(view.pod_rows());
    let Some((pod, row)) = pods.find(|(pod, _)| pod.name == name) else {
        bail!(
            "pod/{name}: namespace {namespace} has no such pod that runs and that Istio has injected"
        );
    };
    let told = view.told(pod);
    let node = row.node.as_deref().unwrap_or("none");
    let mut text = format!("{namespace}/{name}  {}\n", word(&row.state));
    let fields = [
        ("node", Some(node)),
        ("reason", row.reason.as_deref()),
        ("because", row.message.as_deref()),
        ("shortcut", row.shortcut.as_deref()),
    ];
    for (field, value) in fields {
        if let Some(value) = value {
            let _infallible = writeln!(text, "  {field:<9}{value}");
        }
    }
    if let Some(told) = told {
        text.push_str("its agent says:");
        agent::line(&mut text, told);
    }
    Ok(Shown {
        text,
        attention: row.needs_attention(),
        json: json!({"pod": row, "agent": told}),
    })
}

/// Whether one of them needs a person's attention.
pub(super) fn attention(rows: &[PodRow]) -> bool {
    rows.iter().any(PodRow::needs_attention)
}

/// The table.
pub(super) fn text(rows: &[PodRow]) -> String {
    let rows = rows.iter().map(|row| {
        [
            row.namespace.clone(),
            row.name.clone(),
            row.node.clone().unwrap_or_default(),
            word(&row.state),
            row.shortcut.clone().unwrap_or_default(),
            why(row),
        ]
    });
    let headings = ["NAMESPACE", "NAME", "NODE", "STATE", "SHORTCUT", "WHY"];
    table(headings, rows)
}

impl PodRow {
    /// A pod that has just been made is nobody's concern yet.
    fn needs_attention(&self) -> bool {
        self.state == State::Waiting && self.reason.as_deref() != Some(BEGINS)
    }
}

fn why(row: &PodRow) -> String {
    let parts = [row.reason.as_deref(), row.message.as_deref()];
    let parts = parts.into_iter().flatten().filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(": ")
}
