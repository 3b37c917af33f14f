//! A pod whose node has no agent.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use sidestep_cluster::{
    Cluster,
    room::{Room, objects, until},
    sidestep,
};
use sidestep_kit::needs;

use crate::world::{alone, elsewhere, is_gated, restored, without_agent};

#[needs(sidestep_cluster::programs)]
fn a_pod_waits_at_the_gate_while_its_nodes_agent_is_down_and_then_starts_at_once() {
    let cluster = alone();
    elsewhere(&cluster);
    without_agent(&cluster);
    let room = cluster.mesh_room("waiting");
    room.apply(&[
        objects::server("server"),
        objects::service("server"),
        objects::job(
            "once",
            &json!([
                "sh",
                "-c",
                "until wget -qO- http://server/; do sleep 1; done"
            ]),
        ),
    ]);
    until("both wait at their gates", || {
        let pods = room.get("pods");
        let pods = pods["items"].as_array().expect("a list");
        pods.len() == 2 && pods.iter().all(|pod| refused(&room, pod) >= 2)
    });
    let waiting = room.get("pods");
    for pod in waiting["items"].as_array().expect("a list") {
        assert!(is_gated(pod), "{pod:#}");
        assert_eq!(pod["status"]["phase"], "Pending");
        for status in pod["status"]["containerStatuses"].as_array().expect("some") {
            assert!(!status["state"]["waiting"].is_null(), "{status:#}");
        }
    }

    restored(&cluster);
    room.accelerated(&["server"]);
    room.kubectl("wait --for=condition=Complete --timeout=120s job/once");
    let up = agent_was_up(&cluster);
    for pod in waiting["items"].as_array().expect("a list") {
        let pod = name(pod);
        let passed = logged(
            &room.kubectl(&format!("logs {pod} -c istio-init --timestamps")),
            "Validation passed",
        );
        let took = passed - up;
        assert!(
            took <= 2.0,
            "the gate of {pod} opened {took} s after the agent was up"
        );
        let restarts = room.get(&format!("pod {pod}"));
        for status in restarts["status"]["initContainerStatuses"]
            .as_array()
            .expect("some")
        {
            assert_eq!(status["restartCount"], 0, "{status:#}");
        }
    }
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().expect("a name")
}

/// How often a pod's gate was refused.
fn refused(room: &Room<'_>, pod: &Value) -> usize {
    let output = room.try_kubectl(&format!("logs {} -c istio-init", name(pod)));
    String::from_utf8_lossy(&output.stdout)
        .matches("connection refused")
        .count()
}

/// When the agent could arm pods, by its own log, in seconds since the epoch.
fn agent_was_up(cluster: &Cluster) -> f64 {
    let agent = cluster.agent();
    let log = cluster.kubectl(&format!(
        "-n {} logs {} --timestamps",
        sidestep::NAMESPACE,
        name(&agent)
    ));
    logged(&log, "ready to arm pods")
}

/// When a line with this text was logged, in seconds since the epoch.
fn logged(log: &str, text: &str) -> f64 {
    let line = log.lines().find(|line| line.contains(text));
    let line = line.unwrap_or_else(|| panic!("no {text:?} in\n{log}"));
    let time = line.split(' ').next().expect("a timestamp");
    let time: Timestamp = time
        .parse()
        .unwrap_or_else(|error| panic!("{time}: {error}"));
    time.as_duration().as_secs_f64()
}
