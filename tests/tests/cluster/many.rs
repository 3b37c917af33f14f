//! A hundred pods at once.

use std::time::Duration;

use serde_json::json;
use sidestep_agent::status::PodState;
use sidestep_tests::cluster::kit::objects;

use crate::world::{alone, is_gated};

const PODS: u32 = 100;

/// They share two cores, each with an Envoy.
const PATIENCE: Duration = Duration::from_mins(6);

#[test]
fn a_hundred_pods_at_once_start() {
    let Some(cluster) = alone() else { return };
    let room = cluster.mesh_room("many");
    let mut pod = objects::client("many");
    // Of what a start costs, keys of RSA are the most.
    pod["metadata"]["annotations"] = json!({
        "proxy.istio.io/config": r#"{"concurrency": 1, "proxyMetadata": {"ECC_SIGNATURE_ALGORITHM": "ECDSA"}}"#,
    });
    room.apply(&[objects::controller("Deployment", "many", PODS, &pod)]);
    room.kubectl(&format!(
        "rollout status deployment/many --timeout={}s",
        PATIENCE.as_secs()
    ));
    let pods = room.get("pods");
    let pods = pods["items"].as_array().expect("a list");
    for pod in pods {
        assert!(is_gated(pod), "{pod:#}");
        let gate = &pod["status"]["initContainerStatuses"][0];
        assert_eq!(gate["restartCount"], 0, "{gate:#}");
    }
    let status = cluster.agent_status();
    let mut ours = status.pods;
    ours.retain(|pod| pod.namespace == room.name());
    assert_eq!(ours.len(), pods.len());
    for pod in &ours {
        assert_eq!(pod.state, PodState::Active, "{pod:?}");
    }
    let agent = cluster.agent();
    let restarts = &agent["status"]["containerStatuses"][0]["restartCount"];
    assert_eq!(*restarts, 0);
}
