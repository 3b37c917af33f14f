//! One agent: its pods, each with its state, its policy in short, and how many connections each row decided.

use std::fmt::Write as _;

use serde_json::json;
use sidestep_agent_api::{PodState, PodStatus, ShortcutStatus, Status};

use super::Shown;

/// What an agent told.
pub(super) fn shown(status: &Status) -> Shown {
    let pending = status.pods.iter().any(|p| p.state == PodState::Pending);
    Shown {
        text: text(status),
        json: json!(status),
        attention: pending || !status.errors.is_empty(),
    }
}

/// The same for people.
pub(super) fn text(status: &Status) -> String {
    let mut out = format!("agent {} (pid {})", status.version, status.pid);
    if let Some(node) = &status.node {
        let _infallible = write!(out, ", node {node}");
    }
    // An agent that has not started yet does not know it.
    if !status.cgroup.as_os_str().is_empty() {
        let _infallible = write!(out, ", pods' cgroup {}", status.cgroup.display());
    }
    out.push('\n');
    if status.layouts.len() > 1 {
        let pods = status.layouts.iter();
        let pods: Vec<_> = pods.map(|(name, pods)| format!("{name} {pods}")).collect();
        let _infallible = writeln!(out, "pods by layout of the maps: {}", pods.join(", "));
    }
    shortcut(&mut out, &status.shortcut);
    for pod in &status.pods {
        line(&mut out, pod);
    }
    if status.pods.is_empty() {
        out.push_str(no_pods(status));
    }
    for error in &status.errors {
        let _infallible = writeln!(out, "error: {error}");
    }
    for repair in &status.repairs {
        let _infallible = writeln!(out, "restored: {repair}");
    }
    out
}

/// It is on only where the agent says so: one that has not started yet has no reason to give either.
fn shortcut(out: &mut String, shortcut: &ShortcutStatus) {
    let _infallible = match &shortcut.reason {
        _ if shortcut.on => writeln!(out, "shortcut on, {} ends of connections", shortcut.ends),
        Some(why) => writeln!(out, "shortcut off: {why}"),
        None => writeln!(out, "shortcut not proven yet"),
    };
    let parts = [
        ("sockets of applications", &shortcut.not_from_applications),
        (
            "delivery into applications",
            &shortcut.not_into_applications,
        ),
    ];
    for (part, why) in parts {
        if let (true, Some(why)) = (shortcut.on, why) {
            let _infallible = writeln!(out, "shortcut: {part} left to TCP: {why}");
        }
    }
}

fn no_pods(status: &Status) -> &'static str {
    match &status.node {
        None => "no pods: put Pod files into the agent's folder (--pods)\n",
        Some(_) if status.ready => "no accelerated pods on this node\n",
        // There may be some. The errors say why none is armed.
        Some(_) => "",
    }
}

/// A pod and what its agent tells of it.
pub(super) fn line(out: &mut String, pod: &PodStatus) {
    let state = pod.state.name();
    let _infallible = write!(out, "\n{}/{}  {state}", pod.namespace, pod.name);
    if let Some(us) = pod.programmed_us {
        let _infallible = write!(out, "  programmed in {}.{:03} ms", us / 1000, us % 1000);
    }
    out.push('\n');
    let mut field = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            let _infallible = writeln!(out, "  {name:<8}{value}");
        }
    };
    field("reason", pod.reason.as_deref());
    field("netns", pod.netns.as_deref());
    field("policy", pod.policy.as_deref());
    let rows: Vec<String> = pod
        .rows
        .iter()
        .map(|(row, n)| format!("{row} {n}"))
        .collect();
    field(
        "rows",
        Some(rows.join(", ").as_str()).filter(|r| !r.is_empty()),
    );
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// What is shown of a status without pods that has these fields besides.
    fn shown(fields: &Value) -> String {
        let mut status = json!({
            "ready": true, "version": "1", "pid": 7, "cgroup": "", "pods": [], "errors": [], "repairs": [],
            "shortcut": ShortcutStatus::default(),
        });
        for (name, value) in fields.as_object().expect("an object") {
            status[name] = value.clone();
        }
        text(&serde_json::from_value(status).expect("a status"))
    }

    #[test]
    fn an_agent_that_is_not_ready_calls_nothing_on_and_asks_for_no_files() {
        let why = "programs: not attached yet";
        let shown = shown(&json!({"ready": false, "node": "n", "errors": [why]}));
        let wanted = format!("agent 1 (pid 7), node n\nshortcut not proven yet\nerror: {why}\n");
        assert_eq!(shown, wanted);
    }

    #[test]
    fn a_shortcut_is_on_only_where_the_agent_says_so() {
        let shortcut = |on, reason: Option<&str>| {
            let status = ShortcutStatus {
                on,
                reason: reason.map(ToOwned::to_owned),
                not_from_applications: Some("x".to_owned()),
                ..ShortcutStatus::default()
            };
            let shown = shown(&json!({"shortcut": status}));
            let lines = shown.lines().filter(|line| line.starts_with("shortcut"));
            lines.map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(shortcut(false, None), ["shortcut not proven yet"]);
        assert_eq!(shortcut(false, Some("y")), ["shortcut off: y"]);
        assert_eq!(
            shortcut(true, None),
            [
                "shortcut on, 0 ends of connections",
                "shortcut: sockets of applications left to TCP: x"
            ]
        );
    }

    #[test]
    fn pod_files_are_spoken_of_only_where_there_are_some() {
        assert!(shown(&json!({})).contains("Pod files"));
        let on_a_node = shown(&json!({"node": "n"}));
        assert!(
            on_a_node.ends_with("no accelerated pods on this node\n"),
            "{on_a_node}"
        );
    }
}
