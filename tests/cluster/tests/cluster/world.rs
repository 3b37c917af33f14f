//! The cluster of all tests here, with Sidestep on it.

use std::{
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    thread,
};

use serde_json::json;
use sidestep_cluster::{
    Cluster, Place,
    room::{objects, until},
    sidestep,
};

pub use sidestep_cluster::gate::{is_gated, is_plain_istio, istio_init, left_alone, reason};

/// Values that keep the agent off every node.
const NO_AGENT: &str = "agent.nodeSelector.sidestep\\.test/agent=none";

/// A pod that is Ready and has the agents' label: what the webhook takes for another node's agent. It does nothing.
const ELSEWHERE: &str = "agent-elsewhere";

static CLUSTER: OnceLock<RwLock<Cluster>> = OnceLock::new();

/// The cluster, for tests that change nothing but their own namespace.
pub fn shared() -> RwLockReadGuard<'static, Cluster> {
    cluster().read().unwrap_or_else(PoisonError::into_inner)
}

/// The cluster, for a test that needs it alone. It leaves it as it found it, or [`restored`].
pub fn alone() -> Alone {
    Alone(cluster().write().unwrap_or_else(PoisonError::into_inner))
}

/// The cluster while nobody else uses it; a test that fails must not make others fail.
pub struct Alone(RwLockWriteGuard<'static, Cluster>);

impl Deref for Alone {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if thread::panicking() && catch_unwind(AssertUnwindSafe(|| restored(self))).is_err() {
            eprintln!("the cluster is not as it was: others may fail, too");
        }
    }
}

fn cluster() -> &'static RwLock<Cluster> {
    CLUSTER.get_or_init(|| {
        let images = thread::spawn(|| sidestep::build_images(&["webhook", "agent"]));
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
        sidestep::install(&cluster, &images, &[]).unwrap_or_else(|error| panic!("{error:#}"));
        until_gated(&cluster);
        RwLock::new(cluster)
    })
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
    let elsewhere = format!("delete pod {ELSEWHERE} --now --ignore-not-found");
    cluster.kubectl(&format!("-n {} {elsewhere}", sidestep::NAMESPACE));
    until("there is one agent", || cluster.agents().len() == 1);
    until_gated(cluster);
}

/// Gives the release these values.
pub fn with_values(cluster: &Cluster, values: &[&str]) {
    let upgraded = sidestep::upgrade(cluster, values);
    upgraded.unwrap_or_else(|error| panic!("{error:#}"));
}

/// Waits until the webhook lets pods be accelerated.
fn until_gated(cluster: &Cluster) {
    let room = cluster.mesh_room("agent");
    until("the webhook sees an agent", || {
        is_gated(&room.admit(&objects::client("probe")).pod)
    });
}

/// Takes the node's agent away. The webhook leaves new pods to Istio then, unless there is another agent [`elsewhere`].
pub fn without_agent(cluster: &Cluster) {
    with_values(cluster, &[NO_AGENT]);
    until("the agent is gone", || cluster.agents().is_empty());
}

/// Lets the webhook believe that another node has an agent that is ready.
pub fn elsewhere(cluster: &Cluster) {
    let mut agent = objects::client(ELSEWHERE);
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
    cluster.kubectl(&format!(
        "-n {} wait --for=condition=Ready --timeout=120s pod/{ELSEWHERE}",
        sidestep::NAMESPACE
    ));
}
