//! Nodes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::bail;
use serde_json::json;

use super::view::{AgentState, NodeRow, PodRow, State, View};
use super::{Shown, agent, pods, word};
use crate::table::table;

/// The table of all nodes.
pub(super) fn all(view: &View) -> Shown {
    let rows = view.node_rows();
    let pods = view.pod_rows();
    let mut text = table(
        [
            "NODE",
            "AGENT",
            "KERNEL",
            "VERSION",
            "ACCELERATED",
            "WAITING",
            "LEFT",
            "SHORTCUT",
        ],
        rows.iter().map(cells),
    );
    let notes = notes(&rows, &pods);
    if !notes.is_empty() {
        let _infallible = write!(text, "\n{}\n", notes.join("\n"));
    }
    Shown {
        text,
        json: json!({"nodes": rows, "left": by_reason(&pods, State::Left), "waiting": by_reason(&pods, State::Waiting)}),
        attention: rows.iter().any(NodeRow::needs_attention) || pods::attention(&pods),
    }
}

/// One node with what its agent tells.
pub(super) fn one(view: &View, name: &str) -> anyhow::Result<Shown> {
    let mut rows = view.node_rows();
    rows.retain(|row| row.node == name);
    let Some(row) = rows.pop() else {
        bail!("node/{name}: the cluster has no such node");
    };
    let mut here = view.pod_rows();
    here.retain(|pod| pod.node.as_deref() == Some(name));
    let status = view
        .agents
        .get(name)
        .and_then(|(_, told)| told.as_ref().ok());
    let mut text = format!(
        "node {name}: agent {}, Linux {}\n",
        word(&row.agent),
        row.kernel
    );
    if let Some(cause) = &row.cause {
        let _infallible = writeln!(text, "because: {cause}");
    }
    if let Some(status) = status {
        text.push_str(&agent::text(status));
    }
    if !here.is_empty() {
        let _infallible = write!(text, "\n{}", pods::text(&here));
    }
    Ok(Shown {
        text,
        attention: row.needs_attention() || pods::attention(&here),
        json: json!({"node": row, "agent": status, "pods": here}),
    })
}

impl NodeRow {
    const fn needs_attention(&self) -> bool {
        !matches!(self.agent, AgentState::Ready | AgentState::Unsupported)
    }
}

fn cells(row: &NodeRow) -> [String; 8] {
    let shortcut = row.shortcut.map_or("", |on| if on { "on" } else { "off" });
    [
        row.node.clone(),
        word(&row.agent),
        row.kernel.clone(),
        row.version.clone().unwrap_or_default(),
        row.accelerated.to_string(),
        row.waiting.to_string(),
        row.left.to_string(),
        shortcut.to_owned(),
    ]
}

/// What the table has no room for: causes with the nodes that have them, and how many pods have which reason.
fn notes(rows: &[NodeRow], pods: &[PodRow]) -> Vec<String> {
    let mut causes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for row in rows {
        let agent = row
            .cause
            .as_ref()
            .map(|why| format!("agent {}: {why}", word(&row.agent)));
        let shortcut = row
            .shortcut_off
            .as_ref()
            .map(|why| format!("shortcut off: {why}"));
        for cause in agent.into_iter().chain(shortcut) {
            causes.entry(cause).or_default().push(&row.node);
        }
    }
    let causes = causes
        .into_iter()
        .map(|(cause, nodes)| format!("{}: {cause}", nodes.join(", ")));
    let counted = [("waiting", State::Waiting), ("left", State::Left)].into_iter();
    let counted = counted.filter_map(|(what, state)| {
        let reasons = by_reason(pods, state);
        let reasons: Vec<_> = reasons
            .iter()
            .map(|(word, n)| format!("{n} {word}"))
            .collect();
        (!reasons.is_empty()).then(|| format!("pods {what}: {}", reasons.join(", ")))
    });
    causes.chain(counted).collect()
}

/// How many pods of a state have which reason.
fn by_reason(pods: &[PodRow], state: State) -> BTreeMap<&str, usize> {
    let mut reasons = BTreeMap::new();
    for pod in pods.iter().filter(|pod| pod.state == state) {
        *reasons
            .entry(pod.reason.as_deref().unwrap_or("?"))
            .or_default() += 1;
    }
    reasons
}
