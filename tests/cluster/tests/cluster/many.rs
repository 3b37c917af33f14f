//! A hundred pods at once.

use sidestep_kit::needs;
use std::time::Duration;

use serde_json::{Value, json};
use sidestep_agent::status::PodState;
use sidestep_cluster::room::{Room, comes, objects};

use crate::world::{alone, is_gated, istio_init};

/// Each sidecar watches files, and Linux allows a user 128 watchers (`fs.inotify.max_user_instances`), which some forty sidecars use up. So the
/// pods are of four namespaces, whose sidecars run as users of their own.
const ROOMS: usize = 4;

const PODS: usize = 100;

/// They share two cores, each with an Envoy.
const PATIENCE: Duration = Duration::from_mins(5);

/// Whether the gates passed at once, and the pods became Ready: exit codes, restarts and conditions, a line each.
const STARTS: &str = "get pods --no-headers -o custom-columns=:.status.initContainerStatuses[0].state.terminated.exitCode,:.status.initContainerStatuses[0].restartCount,:.status.conditions[?(@.type=='Ready')].status";

#[needs(sidestep_cluster::programs)]
fn a_hundred_pods_at_once_start() {
    let cluster = alone();
    // As on OpenShift, where a namespace says which users its pods may have.
    let platform = [
        "values.global.platform=openshift",
        "values.pilot.cni.enabled=false",
    ];
    let _revision = cluster.revision("ranges", &platform);
    let rooms: Vec<_> = (0..ROOMS)
        .map(|number| {
            let room = cluster.room(&format!("many-{number}"), &[("istio.io/rev", "ranges")]);
            let range = format!("openshift.io/sa.scc.uid-range={}/10", 2000 + 10 * number);
            room.kubectl(&format!("annotate namespace {} {range}", room.name()));
            room
        })
        .collect();
    let mut pod = objects::client("many");
    // Of what a start costs, keys of RSA are the most.
    pod["metadata"]["annotations"] = json!({
        "proxy.istio.io/config": r#"{"concurrency": 1, "proxyMetadata": {"ECC_SIGNATURE_ALGORITHM": "ECDSA"}}"#,
    });
    let each = u32::try_from(PODS / ROOMS).expect("a small number");
    for room in &rooms {
        room.apply(&[objects::controller("Deployment", "many", each, &pod)]);
    }
    let mut starts = String::new();
    let started = comes(PATIENCE, || {
        starts = rooms.iter().map(|room| room.kubectl(STARTS)).collect();
        let well = |line: &&str| line.split_whitespace().eq(["0", "0", "True"]);
        starts.lines().filter(well).count() == PODS
    });
    let pods = |room: &Room<'_>| room.kubectl("get pods");
    let told = || rooms.iter().map(pods).collect::<String>();
    assert!(
        started,
        "exit codes and restarts of the gates, and whether the pods are Ready:\n{starts}{}",
        told()
    );
    let uids: Vec<_> = rooms.iter().map(proxy_uid).collect();
    assert_eq!(uids, ["2009", "2019", "2029", "2039"]);
    let mut ours = cluster.agent_status().pods;
    ours.retain(|pod| rooms.iter().any(|room| pod.namespace == room.name()));
    assert_eq!(ours.len(), PODS);
    for pod in &ours {
        assert_eq!(pod.state, PodState::Active, "{pod:?}");
    }
    let agent = cluster.agent();
    let restarts = &agent["status"]["containerStatuses"][0]["restartCount"];
    assert_eq!(*restarts, 0);
    // The next test needs the machine.
    for room in &rooms {
        room.kubectl("delete deployment many --cascade=foreground --timeout=300s");
    }
}

/// The user of a namespace's sidecars, as their gates have it; all pods have gates.
fn proxy_uid(room: &Room<'_>) -> String {
    let pods = room.get("pods");
    let pods = pods["items"].as_array().expect("a list");
    let uid = |pod: &Value| {
        assert!(is_gated(pod), "{pod:#}");
        let arguments = istio_init(pod)[0]["args"].as_array();
        let mut arguments = arguments.expect("istio-init has arguments").iter();
        arguments.find(|argument| *argument == "-u");
        arguments.next().and_then(Value::as_str).map(str::to_owned)
    };
    let mut uids: Vec<_> = pods.iter().map(uid).collect();
    uids.dedup();
    assert_eq!(uids.len(), 1, "{uids:?}");
    uids.remove(0).expect("a user")
}
