//! What a person sees from a desk with `sidestep check` and `sidestep status`: a cluster that is well, and one that is not.

use std::process::Command;

use serde_json::{Value, json};
use sidestep_cluster::{
    Cluster,
    agent::said,
    room::{objects, until},
    sidestep::NAMESPACE,
};
use sidestep_kit::{needs, parts};

use crate::world::alone;

const WEBHOOK: &str = "deployment/sidestep-webhook";

/// Checks that depend on the kernel and on what other tests left: warnings that the README explains.
const MAY_WARN: [&str; 3] = ["agent-shortcut", "events", "missed-pods"];

/// A Deployment without replicas, until this is dropped.
struct Down<'a> {
    cluster: &'a Cluster,
    replicas: u64,
}

impl<'a> Down<'a> {
    fn webhook(cluster: &'a Cluster) -> Self {
        let deployment = cluster.get(&format!("-n {NAMESPACE} {WEBHOOK}"));
        let replicas = deployment["spec"]["replicas"].as_u64();
        let down = Self {
            cluster,
            replicas: replicas.expect("a number"),
        };
        down.scale(0);
        down
    }

    fn scale(&self, replicas: u64) {
        let scale = format!("-n {NAMESPACE} scale {WEBHOOK} --replicas={replicas}");
        self.cluster.kubectl(&scale);
    }
}

impl Drop for Down<'_> {
    fn drop(&mut self) {
        self.scale(self.replicas);
    }
}

/// What `sidestep` prints for programs, and its exit code.
fn asked(cluster: &Cluster, words: &str) -> (Option<i32>, Value) {
    let output = cluster.sidestep(&format!("{words} -o json"));
    let json = serde_json::from_slice(&output.stdout);
    let json = json.unwrap_or_else(|error| panic!("{words}: {error}: {}", said(&output)));
    (output.status.code(), json)
}

/// The level and the message of a check.
fn found(checked: &Value, name: &str) -> (String, String) {
    let mut checks = checked["checks"].as_array().expect("checks").iter();
    let check = checks.find(|check| check["check"] == name);
    let check = check.unwrap_or_else(|| panic!("no check {name}: {checked:#}"));
    let text = |field: &str| check[field].as_str().unwrap_or_default().to_owned();
    (text("level"), text("message"))
}

#[needs(sidestep_cluster::programs)]
fn a_desk_sees_what_is_accelerated_what_is_left_and_what_is_broken() {
    let cluster = alone();
    let room = cluster.mesh_room("check");
    let mut left = objects::server("left");
    left["metadata"]["annotations"] = json!({"sidestep.dev/enabled": "false"});
    room.apply(&[objects::server("server"), left]);
    room.accelerated(&["server"]);
    room.ready(&["left"]);

    let (_, pods) = asked(&cluster, &format!("status -n {}", room.name()));
    let states = pods["pods"].as_array().expect("pods").iter();
    let states: Vec<_> = states
        .map(|pod| (&pod["name"], &pod["state"], &pod["reason"]))
        .collect();
    let [left, opted_out] = [json!("left"), json!("opted-out")];
    let [server, accelerated] = [json!("server"), json!("accelerated")];
    let wanted = [
        (&left, &left, &opted_out),
        (&server, &accelerated, &Value::Null),
    ];
    assert_eq!(states, wanted);
    let (code, nodes) = asked(&cluster, "status");
    assert_eq!(
        (code, &nodes["nodes"][0]["agent"]),
        (Some(0), &json!("ready")),
        "{nodes:#}"
    );
    let (_, pod) = asked(&cluster, &format!("status pod/server -n {}", room.name()));
    assert_eq!(pod["agent"]["state"], "active", "{pod:#}");

    let (code, checked) = asked(&cluster, &format!("check --wait 60 -n {}", room.name()));
    assert_eq!(code, Some(0), "{checked:#}");
    for check in checked["checks"].as_array().expect("checks") {
        let may_warn = MAY_WARN.iter().any(|name| check["check"] == *name);
        assert!(may_warn || check["level"] == "good", "{check:#}");
    }

    let folder = tempfile::tempdir().expect("a folder");
    let archive = folder.path().join("report.tar.gz");
    let output = cluster.sidestep(&format!("bugreport -o {}", archive.display()));
    assert!(output.status.success(), "{}", said(&output));
    let mut tar = Command::new("tar");
    let listed = parts::finish(tar.arg("tzf").arg(&archive)).expect("an archive");
    let agent = cluster.agent();
    let log = format!(
        "/logs/{}.agent.log",
        agent["metadata"]["name"].as_str().expect("a name")
    );
    let node = format!(
        "/agents/{}.json",
        agent["spec"]["nodeName"].as_str().expect("a node")
    );
    assert!(listed.contains(&log) && listed.contains(&node), "{listed}");

    let down = Down::webhook(&cluster);
    let mut checked = Value::Null;
    until("check names the webhook", || {
        checked = asked(&cluster, &format!("check -n {}", room.name())).1;
        let answers = found(&checked, "webhook-answers");
        answers.0 == "failure" && answers.1.contains("no replica of the webhook is ready")
    });
    let (level, message) = found(&checked, "webhook");
    assert_eq!(level, "failure", "{message}");
    assert!(message.contains("scaled to no replica"), "{message}");
    drop(down);
    let (code, checked) = asked(&cluster, &format!("check --wait 120 -n {}", room.name()));
    assert_eq!(code, Some(0), "{checked:#}");
}
