//! `sidestep status` from a desk. There is no kubelet, so no agent can be asked: that is a row with its cause.

use serde_json::{Value, json};
use sidestep_kit::{apiserver::ApiServer, desk::sidestep, needs, parts};

use crate::world::{accelerated, agent, left, node, opened, shut};

/// A cluster of nodes with and without agents, and of pods in several states.
fn cluster() -> ApiServer {
    let server = ApiServer::start();
    let file = parts::workspace().join("manifests/namespace.yaml");
    server.must(&format!("apply -f {}", file.display()));
    node(&server, "bare", "arm64", "6.12.1", &json!({}));
    node(&server, "old", "amd64", "5.15.0-91", &json!({}));
    node(&server, "one", "amd64", "6.1.0-13-amd64", &json!({}));
    agent(&server, "one");
    accelerated(&server, "runs", "one", &opened());
    accelerated(&server, "waits", "bare", &shut());
    left(
        &server,
        "left",
        "host-network: the pod has hostNetwork: true",
    );
    server
}

fn named<'a>(list: &'a Value, field: &str, name: &str) -> &'a Value {
    let mut rows = list.as_array().expect("a list").iter();
    rows.find(|row| row[field] == name)
        .unwrap_or_else(|| panic!("no {name} in {list:#}"))
}

#[needs(apiserver)]
fn a_desk_sees_every_node_and_pod_though_no_agent_answers() {
    let server = cluster();

    let said = sidestep(&server, "status -o json");
    assert_eq!(said.code, Some(2), "{}", said.error);
    let nodes = said.json();
    for (name, agent, cause) in [
        ("bare", "missing", "no agent's pod"),
        ("old", "unsupported", "kernel-too-old"),
        (
            "one",
            "unreachable",
            "its pod sidestep-agent-one: Internal error occurred: error sending request: dial tcp 127.0.0.1:1: connect: connection refused",
        ),
    ] {
        let row = named(&nodes["nodes"], "node", name);
        assert_eq!(row["agent"], agent, "{row:#}");
        assert!(
            row["cause"].as_str().expect("a cause").contains(cause),
            "{row:#}"
        );
    }
    assert_eq!(named(&nodes["nodes"], "node", "one")["accelerated"], 1);
    assert_eq!(nodes["left"], json!({"host-network": 1}));

    let said = sidestep(&server, "status -A -o json");
    assert_eq!(said.code, Some(2), "a pod waits: {}", said.error);
    let pods = said.json();
    for (name, state, why) in [
        ("runs", "accelerated", "does not answer now"),
        ("waits", "waiting", "node bare has no agent"),
        ("left", "left", "the pod has hostNetwork: true"),
    ] {
        let row = named(&pods["pods"], "name", name);
        assert_eq!(row["state"], state, "{row:#}");
        assert!(
            row["message"].as_str().expect("why").contains(why),
            "{row:#}"
        );
    }

    // As people see them.
    let said = sidestep(&server, "status");
    let line = said.out.lines().find(|line| line.starts_with("old "));
    assert!(
        line.is_some_and(|line| line.contains("unsupported")),
        "{}",
        said.out
    );
    let said = sidestep(&server, "status pod/left");
    assert_eq!(said.code, Some(0), "{}", said.error);
    assert!(said.out.contains("host-network"), "{}", said.out);
    let said = sidestep(&server, "status node/bare");
    assert_eq!(said.code, Some(2));
    assert!(
        said.out.contains("because: no agent's pod is there"),
        "{}",
        said.out
    );

    // What is not there.
    for words in ["status pod/nobody", "status node/nowhere"] {
        let said = sidestep(&server, words);
        assert_eq!(said.code, Some(1), "{words}: {}", said.out);
        assert!(said.error.contains("no such"), "{}", said.error);
    }
}

#[needs(apiserver)]
fn a_list_of_several_pages_is_read_to_its_end() {
    let server = ApiServer::start();
    let pod = |n: usize| {
        let mut pod = crate::pods::injected(&format!("many-{n}"));
        pod["metadata"]["annotations"]["sidestep.dev/left-alone"] = "opted-out: x".into();
        pod
    };
    let pods: Vec<_> = (0..620).map(pod).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": pods});
    server.feed("create", &list).expect("pods");
    let said = sidestep(&server, "status -n default -o json");
    let pods = said.json();
    assert_eq!(
        pods["pods"].as_array().expect("a list").len(),
        620,
        "{}",
        said.error
    );
}
