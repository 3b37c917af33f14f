//! What a cluster's nodes and pods are called, state by state.

use serde_json::{Value, json};
use sidestep_agent_api::ShortcutStatus;
use sidestep_contract::waiting::Place;

use super::*;

fn agent(node: &str, answer: Answer) -> (String, (AgentPod, Answer)) {
    let pod = AgentPod {
        name: format!("sidestep-agent-{node}"),
        node: node.to_owned(),
        image: "r/agent:1".to_owned(),
        down: None,
    };
    (node.to_owned(), (pod, answer))
}

/// A ready agent's status with these fields besides.
fn status(fields: &Value) -> Status {
    let shortcut = ShortcutStatus {
        on: true,
        ..ShortcutStatus::default()
    };
    let mut status = json!({
        "ready": true, "version": "1", "pid": 7, "cgroup": "", "pods": [], "errors": [], "repairs": [],
        "shortcut": shortcut,
    });
    for (name, value) in fields.as_object().expect("an object") {
        status[name] = value.clone();
    }
    serde_json::from_value(status).expect("a status")
}

/// A status whose one pod is `web`, in this state for this reason.
fn with_web(state: &str, reason: Option<&str>) -> Status {
    status(&json!({"pods": [{
        "namespace": "shop", "name": "web", "state": state, "reason": reason, "netns": null, "cookie": null,
        "policy": null, "programmed_us": null, "rows": {}, "flows": 0,
    }]}))
}

fn pod(seen: Seen, node: Option<&str>) -> SeenPod {
    SeenPod {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        node: node.map(ToOwned::to_owned),
        made: None,
        reach: Some("node".to_owned()),
        seen,
    }
}

/// The row of a pod on node `one`, whose agent answers this.
fn row(seen: Seen, answer: Option<Answer>) -> PodRow {
    let agents = answer.map(|answer| agent("one", answer));
    let view = View {
        nodes: Vec::new(),
        agents: agents.into_iter().collect(),
        pods: vec![pod(seen, Some("one"))],
    };
    view.pod_rows().pop().expect("a row")
}

fn gate() -> Seen {
    Seen::Waits(Place::Gate("one".to_owned()))
}

#[track_caller]
fn assert_row(row: &PodRow, state: State, reason: Option<&str>, message: &str) {
    let said = row.message.as_deref().unwrap_or_default();
    assert_eq!(
        (row.state, row.reason.as_deref()),
        (state, reason),
        "{row:?}"
    );
    assert!(said.contains(message), "{row:?}");
}

#[test]
fn a_pod_at_its_gate_tells_for_what_it_waits() {
    let not_ready = status(&json!({"ready": false, "errors": ["no bpffs"]}));
    let cases: [(Option<Answer>, &str); 7] = [
        (None, "node one has no agent"),
        (
            Some(Err("timed out".to_owned())),
            "does not answer: timed out",
        ),
        (
            Some(Ok(with_web("pending", Some("no sandbox yet")))),
            "no sandbox yet",
        ),
        (Some(Ok(with_web("pending", None))), "about to program"),
        (Some(Ok(with_web("armed", None))), "about to open"),
        (Some(Ok(not_ready)), "is not ready: no bpffs"),
        (Some(Ok(status(&json!({})))), "does not know of it yet"),
    ];
    for (answer, message) in cases {
        assert_row(
            &row(gate(), answer),
            State::Waiting,
            Some("at-its-gate"),
            message,
        );
    }
}

#[test]
fn a_pod_that_passed_its_gate_is_accelerated_unless_its_agent_knows_better() {
    let active = row(Seen::Passed, Some(Ok(with_web("active", None))));
    assert_row(&active, State::Accelerated, None, "");
    assert_eq!(active.message, None);
    let kept = row(Seen::Passed, Some(Ok(with_web("kept", Some("layout v1")))));
    assert_row(&kept, State::Accelerated, None, "layout v1");
    for (answer, message) in [
        (None, "no agent now"),
        (Some(Err("x".to_owned())), "does not answer now"),
        (Some(Ok(status(&json!({})))), "does not list it"),
    ] {
        assert_row(
            &row(Seen::Passed, answer),
            State::Accelerated,
            None,
            message,
        );
    }
    let pending = row(Seen::Passed, Some(Ok(with_web("pending", Some("why")))));
    assert_row(&pending, State::Waiting, Some("not-programmed"), "why");
    let left = row(Seen::Passed, Some(Ok(with_web("left", Some("why")))));
    assert_row(&left, State::Left, Some("left-by-the-agent"), "why");
}

#[test]
fn a_pod_that_is_left_says_why_itself() {
    let left = Seen::Left {
        word: "host-network".to_owned(),
        sentence: "the pod has hostNetwork: true".to_owned(),
    };
    let left = row(left, Some(Ok(status(&json!({})))));
    assert_row(&left, State::Left, Some("host-network"), "hostNetwork");
    assert_eq!(left.shortcut, None);
    assert_row(
        &row(Seen::NotAsked, None),
        State::Left,
        Some("not-asked"),
        "was not asked",
    );
}

#[test]
fn a_pod_that_has_not_begun_waits() {
    assert_row(
        &row(Seen::Begins, None),
        State::Waiting,
        Some("begins"),
        "not begun",
    );
    let nowhere = Seen::Waits(Place::Nowhere("0/2 nodes".to_owned()));
    assert_row(
        &row(nowhere, None),
        State::Waiting,
        Some("unschedulable"),
        "0/2 nodes",
    );
}

#[test]
fn a_shortcut_is_in_effect_only_where_the_node_has_one() {
    let with = |on: bool| {
        let mut status = with_web("active", None);
        status.shortcut.on = on;
        row(Seen::Passed, Some(Ok(status))).shortcut
    };
    assert_eq!(with(true).as_deref(), Some("node"));
    assert_eq!(with(false).as_deref(), Some("off"));
}

#[test]
fn each_node_is_a_row_whatever_its_agent_does() {
    let node = |name: &str, unfit: Option<&str>| SeenNode {
        kernel: "6.12.1".to_owned(),
        unfit: unfit.map(ToOwned::to_owned),
        ..SeenNode::named(name)
    };
    let off = json!({"ready": false, "errors": ["no BTF"], "shortcut": ShortcutStatus::default()});
    let view = View {
        nodes: vec![
            node("bare", None),
            node("old", Some("kernel-too-old")),
            node("one", None),
            node("silent", None),
            node("slow", None),
        ],
        agents: [
            agent("newer", Ok(status(&json!({})))),
            agent("one", Ok(with_web("active", None))),
            agent("silent", Err("refused".to_owned())),
            agent("slow", Ok(status(&off))),
        ]
        .into(),
        pods: vec![
            pod(Seen::Passed, Some("one")),
            pod(gate(), Some("slow")),
            pod(Seen::NotAsked, None),
        ],
    };
    let rows = view.node_rows();
    let shown = rows.iter().map(|row| {
        let cause = row.cause.as_deref().unwrap_or_default();
        (row.node.as_str(), row.agent, cause, row.shortcut)
    });
    let wanted = [
        ("bare", AgentState::Missing, "no agent's pod is there", None),
        ("old", AgentState::Unsupported, "kernel-too-old", None),
        ("one", AgentState::Ready, "", Some(true)),
        ("silent", AgentState::Unreachable, "refused", None),
        ("slow", AgentState::NotReady, "no BTF", Some(false)),
        ("newer", AgentState::Ready, "", Some(true)),
    ];
    assert_eq!(shown.collect::<Vec<_>>(), wanted);
    let counted = rows
        .iter()
        .map(|row| (row.accelerated, row.waiting, row.left));
    let wanted = [
        (0, 0, 0),
        (0, 0, 0),
        (1, 0, 0),
        (0, 0, 0),
        (0, 1, 0),
        (0, 0, 0),
    ];
    assert_eq!(counted.collect::<Vec<_>>(), wanted);
    assert_eq!(rows[4].shortcut_off.as_deref(), Some("not proven yet"));
}
