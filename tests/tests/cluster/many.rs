//! A hundred pods at once.

use std::time::Duration;

use serde_json::json;
use sidestep_agent::status::PodState;
use sidestep_tests::cluster::kit::{comes, objects};

use crate::world::{alone, is_gated};

const PODS: usize = 100;

/// They share two cores, each with an Envoy.
const PATIENCE: Duration = Duration::from_mins(5);

/// The gates' exit codes and restarts, a line each.
const GATES: &str = "get pods --no-headers -o custom-columns=:.status.initContainerStatuses[0].state.terminated.exitCode,:.status.initContainerStatuses[0].restartCount";

/// Every gate opens. How many sidecars of one user then run is the machine's to say: each watches files, and Linux allows a user 128
/// watchers (`fs.inotify.max_user_instances`), which some forty sidecars use up.
#[test]
fn the_gates_of_a_hundred_pods_at_once_open() {
    let Some(cluster) = alone() else { return };
    let room = cluster.mesh_room("many");
    let mut pod = objects::client("many");
    // Of what a start costs, keys of RSA are the most.
    pod["metadata"]["annotations"] = json!({
        "proxy.istio.io/config": r#"{"concurrency": 1, "proxyMetadata": {"ECC_SIGNATURE_ALGORITHM": "ECDSA"}}"#,
    });
    let replicas = u32::try_from(PODS).expect("a small number");
    room.apply(&[objects::controller("Deployment", "many", replicas, &pod)]);
    let mut gates = String::new();
    let open = comes(PATIENCE, || {
        gates = room.kubectl(GATES);
        let passed = |line: &&str| line.split_whitespace().eq(["0", "0"]);
        gates.lines().filter(passed).count() == PODS
    });
    assert!(
        open,
        "exit codes and restarts of the gates:\n{gates}{}",
        room.kubectl("get pods")
    );
    let pods = room.get("pods");
    for pod in pods["items"].as_array().expect("a list") {
        assert!(is_gated(pod), "{pod:#}");
    }
    let mut ours = cluster.agent_status().pods;
    ours.retain(|pod| pod.namespace == room.name());
    assert_eq!(ours.len(), PODS);
    for pod in &ours {
        assert!(
            matches!(pod.state, PodState::Armed | PodState::Active),
            "{pod:?}"
        );
    }
    let agent = cluster.agent();
    let restarts = &agent["status"]["containerStatuses"][0]["restartCount"];
    assert_eq!(*restarts, 0);
    // The next test needs the machine.
    room.kubectl("delete deployment many --cascade=foreground --timeout=300s");
}
