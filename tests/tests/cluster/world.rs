//! The cluster of all tests here, with Sidestep's webhook on it.

use std::{
    sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread,
};

use serde_json::{Value, json};
use sidestep_tests::{
    can_run,
    cluster::{
        Cluster, Place,
        kit::{objects, until},
        sidestep,
    },
};

/// The release's values: no node runs the agent, so that a test says whether the webhook sees one.
const VALUES: [&str; 1] = ["agent.nodeSelector.sidestep\\.test/agent=none"];

/// A pod that is Ready and has the agents' label: what the webhook takes for a node's agent. It does nothing, so every gate stays shut.
const AGENT: &str = "agent-in-name-only";

static CLUSTER: OnceLock<RwLock<Cluster>> = OnceLock::new();

/// The cluster, for tests that change nothing but their own namespace; nothing where it cannot run.
pub fn shared() -> Option<RwLockReadGuard<'static, Cluster>> {
    let cluster = cluster()?;
    Some(cluster.read().unwrap_or_else(PoisonError::into_inner))
}

/// The cluster, for a test that needs it alone. It leaves it as it found it, or [`restored`].
pub fn alone() -> Option<RwLockWriteGuard<'static, Cluster>> {
    let cluster = cluster()?;
    Some(cluster.write().unwrap_or_else(PoisonError::into_inner))
}

fn cluster() -> Option<&'static RwLock<Cluster>> {
    let programs = ["unshare", "mount", "iptables", "nft", "wrk", "python3"];
    if !can_run(&programs) {
        return None;
    }
    Some(CLUSTER.get_or_init(|| {
        let images = thread::spawn(|| sidestep::build_images(&["webhook"]));
        let cluster = match std::env::var("SIDESTEP_CLUSTER") {
            // One that is up already, to save half a minute while tests are written.
            Ok(name) => Place::new(&name).and_then(|place| Cluster::attach(&place)),
            Err(_) => Cluster::for_tests(),
        };
        let cluster = cluster.unwrap_or_else(|error| panic!("no cluster: {error:#}"));
        // A static is not dropped when the process ends. If it is killed, the cluster's processes end all the same.
        // SAFETY: the handler is a function of this program that takes nothing and returns nothing.
        unsafe { libc::atexit(end) };
        let images = images
            .join()
            .expect("no panic")
            .unwrap_or_else(|error| panic!("{error:#}"));
        sidestep::install(&cluster, &images, &VALUES).unwrap_or_else(|error| panic!("{error:#}"));
        start_agent(&cluster);
        RwLock::new(cluster)
    }))
}

extern "C" fn end() {
    if let Some(cluster) = CLUSTER.get() {
        cluster
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .end();
    }
}

/// Puts webhook and agent back where a test has taken them away.
pub fn restored(cluster: &Cluster) {
    with_values(cluster, &[]);
    start_agent(cluster);
}

/// Gives the release these values beside those that all tests have.
pub fn with_values(cluster: &Cluster, values: &[&str]) {
    let upgraded = sidestep::upgrade(cluster, &[&VALUES, values].concat());
    upgraded.unwrap_or_else(|error| panic!("{error:#}"));
}

/// Lets the webhook believe that an agent runs, and waits until it does.
pub fn start_agent(cluster: &Cluster) {
    let mut agent = objects::client(AGENT);
    agent["metadata"]["namespace"] = json!(sidestep::NAMESPACE);
    agent["metadata"]["labels"] = json!({"app.kubernetes.io/name": "sidestep-agent"});
    // The chart's DaemonSet would adopt it, and delete it, if it belonged to nobody.
    let owner = cluster.get(&format!(
        "-n {} configmap kube-root-ca.crt",
        sidestep::NAMESPACE
    ));
    agent["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": "kube-root-ca.crt",
        "uid": owner["metadata"]["uid"],
        "controller": true,
    }]);
    cluster.apply(&[agent]);
    let room = cluster.mesh_room("agent");
    until("the webhook sees an agent", || {
        is_gated(&room.admit(&objects::client("probe")).pod)
    });
}

/// Takes that agent away, and waits until the webhook knows.
pub fn stop_agent(cluster: &Cluster) {
    cluster.kubectl(&format!(
        "-n {} delete pod {AGENT} --now",
        sidestep::NAMESPACE
    ));
    let room = cluster.mesh_room("agent");
    until("the webhook sees that there is no agent", || {
        left_alone(&room.admit(&objects::client("probe")).pod).is_some()
    });
}

/// The containers named `istio-init`.
pub fn istio_init(pod: &Value) -> Vec<&Value> {
    let containers = pod["spec"]["initContainers"].as_array();
    let containers = containers.into_iter().flatten();
    containers
        .filter(|container| container["name"] == "istio-init")
        .collect()
}

/// Whether a pod's one `istio-init` is the gate, without a privilege, and the pod has the label.
pub fn is_gated(pod: &Value) -> bool {
    let [gate] = istio_init(pod)[..] else {
        return false;
    };
    let context = &gate["securityContext"];
    let arguments = gate["args"].as_array().expect("istio-init has arguments");
    arguments.contains(&json!("--run-validation"))
        && arguments.contains(&json!("--skip-rule-apply"))
        && context["capabilities"] == json!({"drop": ["ALL"]})
        && context["runAsNonRoot"] == json!(true)
        && pod["metadata"]["labels"]["sidestep.dev/accelerated"] == "true"
}

/// Whether a pod is as Istio makes it: `istio-init` writes iptables rules, and no label of ours.
pub fn is_plain_istio(pod: &Value) -> bool {
    let [init] = istio_init(pod)[..] else {
        return false;
    };
    let arguments = init["args"].as_array().expect("istio-init has arguments");
    let capabilities = init["securityContext"]["capabilities"]["add"].as_array();
    !arguments.contains(&json!("--run-validation"))
        && capabilities.is_some_and(|added| added.contains(&json!("NET_ADMIN")))
        && pod["metadata"]["labels"]["sidestep.dev/accelerated"].is_null()
}

/// Why a pod was left to Istio, as it says itself: `reason: sentence`.
pub fn left_alone(pod: &Value) -> Option<&str> {
    pod["metadata"]["annotations"]["sidestep.dev/left-alone"].as_str()
}

/// The reason in a word.
pub fn reason(pod: &Value) -> Option<&str> {
    left_alone(pod)?.split(':').next()
}
