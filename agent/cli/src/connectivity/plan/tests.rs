use serde_json::json;
use sidestep_agent_api::ShortcutStatus;

use super::*;

/// An agent of a node that is ready, or is not.
fn agent(node: &str, ready: bool) -> (AgentPod, Answer) {
    let status = json!({
        "ready": ready, "version": "1", "pid": 7, "cgroup": "", "pods": [], "repairs": [],
        "errors": if ready { json!([]) } else { json!(["no cgroup"]) },
        "shortcut": ShortcutStatus::default(),
    });
    let pod = AgentPod {
        name: format!("agent-{node}"),
        node: node.to_owned(),
        image: "agent".to_owned(),
        down: None,
    };
    (pod, Ok(serde_json::from_value(status).expect("a status")))
}

fn nodes(names: &[&str]) -> Vec<SeenNode> {
    names.iter().map(|name| SeenNode::named(name)).collect()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn the_first_two_nodes_are_tested_whose_agents_are_ready() {
    let mut nodes = nodes(&["d", "c", "b", "a", "e"]);
    nodes[2].cordoned = true;
    nodes[0].without_agent = Some("older".to_owned());
    let agents = [
        agent("a", false),
        agent("b", true),
        agent("c", true),
        agent("d", true),
        agent("e", true),
    ];
    let chosen = chosen(&[], &nodes, &agents).expect("two");
    assert_eq!(chosen.near, "c");
    assert_eq!(chosen.far, Ok("e".to_owned()));
    assert_eq!(chosen.paths(), [Path::SameNode, Path::TwoNodes]);
}

#[test]
fn with_one_node_the_other_half_says_why_it_is_missing() {
    let one = chosen(&[], &nodes(&["a", "b"]), &[agent("a", true)]).expect("one");
    let why = one.far.clone().expect_err("there is no other");
    assert_eq!(why, "a is the only one with an agent that is ready");
    assert_eq!(one.paths(), [Path::SameNode]);
    let names: Vec<_> = one.members().iter().map(|member| member.name).collect();
    let wanted = ["client", "near", "client-istio", "near-istio", "outside"];
    assert_eq!(names, wanted);
}

#[test]
fn what_cannot_be_tested_is_told() {
    let nodes = nodes(&["a", "b", "c"]);
    let agents = [agent("a", true), agent("b", false)];
    for (asked, wanted) in [
        (&["x"][..], "there is no node x"),
        (
            &["a", "b"],
            "node b cannot be tested: its agent is not ready: no cgroup",
        ),
        (&["c"], "node c cannot be tested: it has no agent"),
        (&["a", "a"], "at most two nodes"),
        (&["a", "b", "c"], "at most two nodes"),
    ] {
        let why = chosen(&words(asked), &nodes, &agents).expect_err("it is refused");
        assert!(why.contains(wanted), "{asked:?}: {why}");
    }
    let why = chosen(&[], &nodes, &[]).expect_err("there is no agent");
    assert!(why.contains("no node has an agent that is ready"), "{why}");
}

#[test]
fn each_pod_is_there_for_each_side_and_one_is_outside() {
    let nodes = Nodes {
        near: "a".to_owned(),
        far: Ok("b".to_owned()),
    };
    let members = nodes.members();
    assert_eq!(members.len(), 7);
    for side in [Side::Sidestep, Side::Istio] {
        let of_side = members.iter().filter(|member| member.side == Some(side));
        let places: Vec<_> = of_side
            .map(|member| (member.name, member.node.as_str(), member.is_server))
            .collect();
        let wanted = [
            (client(side), "a", false),
            (server(side, Path::SameNode), "a", true),
            (server(side, Path::TwoNodes), "b", true),
        ];
        assert_eq!(places, wanted);
    }
}
