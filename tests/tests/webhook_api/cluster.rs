//! An API server with the chart installed, a node with an agent, and replicas behind the Service.

use std::fs;

use serde_json::{Value, json};
use sidestep_kit::{
    apiserver::ApiServer,
    chart::{self, NAMESPACE},
    parts,
};

/// The node that has an agent.
pub(crate) const NODE: &str = "with-agent";

/// Where replicas listen, in the API server's namespace.
pub(crate) const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];

/// The chart with these settings, and an agent that is ready.
pub(crate) fn installed(settings: &[&str]) -> ApiServer {
    let server = ApiServer::start();
    server
        .namespace()
        .ip(&format!("addr add {}/24 dev eth0", ADDRESSES[1]));
    let namespace = parts::workspace().join("manifests/namespace.yaml");
    server.must(&format!("apply -f {}", namespace.display()));
    let objects = chart::objects(settings);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let applied = server.feed("apply --server-side", &list);
    applied.unwrap_or_else(|error| panic!("the chart: {error}"));
    // A pod that is lost to a rotation must not pass for one that is none of our business.
    let fail = r#"[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Fail"}]"#;
    let words = ["patch", "mutatingwebhookconfiguration", "sidestep-webhook"];
    let patch = server.kubectl(words.into_iter().chain(["--type=json", "-p", fail]));
    patch.expect("the configuration can be changed");
    let labels = json!({"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"});
    node(&server, NODE, &labels, &json!([]));
    agent(&server, NODE);
    agent_is(&server, NODE, true);
    server
}

/// A node with these labels and taints. The API server taints a new one as not ready, and who takes that away is not here.
pub(crate) fn node(server: &ApiServer, name: &str, labels: &Value, taints: &Value) {
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
    server.feed("create", &node).expect("a node");
    let patch = json!({"spec": {"taints": taints}}).to_string();
    let words = ["patch", "node", name, "--type=merge", "-p", patch.as_str()];
    server.kubectl(words).expect("its taints can be written");
}

/// An agent's pod for this node, as the DaemonSet controller and the scheduler leave it.
pub(crate) fn agent(server: &ApiServer, node: &str) {
    let mut agent = pod(&format!("agent-{node}"), node);
    agent["metadata"]["namespace"] = NAMESPACE.into();
    agent["metadata"]["labels"] = json!({"app.kubernetes.io/name": "sidestep-agent"});
    server.feed("create", &agent).expect("an agent");
}

/// Makes the agent of a node ready or not, as its kubelet does.
pub(crate) fn agent_is(server: &ApiServer, node: &str, ready: bool) {
    let word = if ready { "True" } else { "False" };
    let ready = json!({"conditions": [{"type": "Ready", "status": word}]});
    status(server, &format!("pod agent-{node} -n {NAMESPACE}"), &ready);
}

/// A pod with one container.
fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "app", "image": "app"}]},
    })
}

/// A pod as Istio's injector leaves it.
pub(crate) fn injected(name: &str) -> Value {
    let file = parts::fixtures().join("server/pod.yaml");
    let text = fs::read_to_string(file).expect("a fixture");
    let [mut pod] = chart::documents(&text).try_into().expect("one pod");
    pod["metadata"]["name"] = name.into();
    pod["metadata"]["namespace"] = "default".into();
    pod["spec"]["serviceAccountName"] = "default".into();
    pod
}

/// Writes an object's status, as controllers and kubelets do.
pub(crate) fn status(server: &ApiServer, object: &str, status: &Value) {
    let patch = json!({"status": status}).to_string();
    let words = object.split_whitespace();
    let words = ["patch"].into_iter().chain(words);
    let patched =
        server.kubectl(words.chain(["--subresource=status", "--type=merge", "-p", patch.as_str()]));
    patched.unwrap_or_else(|error| panic!("the status of {object}: {error}"));
}

/// Makes the Service lead to these addresses.
pub(crate) fn route(server: &ApiServer, addresses: &[&str]) {
    let endpoints: Vec<_> = addresses
        .iter()
        .map(|address| json!({"addresses": [address], "conditions": {"ready": true}}))
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "sidestep-webhook",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": "sidestep-webhook"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "https-reviews", "port": 8443, "protocol": "TCP"}],
        "endpoints": endpoints,
    });
    let routed = server.feed("apply --server-side", &slice);
    routed.unwrap_or_else(|error| panic!("the Service's endpoints: {error}"));
}

/// What the API server would make of a new pod that was injected.
pub(crate) fn mutated(server: &ApiServer, name: &str) -> Result<Value, String> {
    let text = server.feed("create --dry-run=server -o json", &injected(name))?;
    Ok(serde_json::from_str(&text).expect("kubectl prints JSON"))
}

/// Whether it is gated.
pub(crate) fn is_gated(pod: &Value) -> bool {
    let init = &pod["spec"]["initContainers"][0];
    let args = init["args"].as_array().expect("arguments");
    pod["metadata"]["labels"]["sidestep.dev/accelerated"] == "true"
        && args.contains(&json!("--run-validation"))
        && init["securityContext"]["runAsNonRoot"] == true
}

/// A value of the webhook's Secret, as it is stored.
pub(crate) fn secret(server: &ApiServer, key: &str) -> Option<String> {
    let words = format!("get secret sidestep-webhook-tls -n {NAMESPACE} -o json");
    let text = server.kubectl(words.split_whitespace()).ok()?;
    let secret: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
    secret["data"][key].as_str().map(str::to_owned)
}

/// Who holds the lease.
pub(crate) fn holder(server: &ApiServer) -> Option<String> {
    let words = format!("get lease sidestep-webhook -n {NAMESPACE} -o json");
    let text = server.kubectl(words.split_whitespace()).ok()?;
    let lease: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
    let holder = lease["spec"]["holderIdentity"].as_str()?;
    Some(holder.split('_').next()?.to_owned()).filter(|holder| !holder.is_empty())
}
