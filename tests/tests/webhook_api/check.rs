//! `sidestep check` finds out whether the API server reaches the webhook, and what is in the way.

use serde_json::json;
use sidestep_kit::{
    apiserver::ApiServer, chart::NAMESPACE, desk::sidestep, needs, process::eventually,
};

use crate::{
    PATIENCE,
    cluster::{ADDRESSES, NODE, installed, route, status},
    replica::Replica,
    until,
};

/// An address in the API server's network at which nothing is: as behind a firewall, packets to it are lost.
const NOWHERE: &str = "10.77.0.99";

#[needs(apiserver, part("helm"))]
fn a_webhook_that_is_not_reached_is_named_with_the_cause() {
    let server = installed(&[]);
    // As the chart has it: then the API server tells nobody that it did not reach the webhook.
    let ignore = r#"[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"}]"#;
    let words = ["patch", "mutatingwebhookconfiguration", "sidestep-webhook"];
    let patch = server.kubectl(words.into_iter().chain(["--type=json", "-p", ignore]));
    patch.expect("the configuration can be changed");
    let deployment = format!("deployment sidestep-webhook -n {NAMESPACE}");
    status(
        &server,
        &deployment,
        &json!({"replicas": 2, "availableReplicas": 2, "readyReplicas": 2}),
    );
    let replica = Replica::start(&server, "one", ADDRESSES[0], &[]);
    replica.ready();
    lead(&server, ADDRESSES[0]);
    let found = |check: &str| sidestep(&server, "check -o json").found(check);

    until("the webhook answers", || {
        found("webhook-answers").0 == "good"
    });
    for check in [
        "ca-bundle",
        "serving-certificate",
        "leader",
        "registration",
        "webhook",
    ] {
        let (level, message) = found(check);
        assert_eq!(level, "good", "{check}: {message}");
    }

    // The API server keeps its connection for as long as that lives.
    replica.crash();
    assert_comes("connection refused", || found("webhook-answers"));

    server.namespace().ip(&format!(
        "neigh add {NOWHERE} lladdr 02:00:00:00:00:99 dev eth0"
    ));
    lead(&server, NOWHERE);
    let said = assert_comes("it waited for 3 s", || found("webhook-answers"));
    assert!(said.contains("Service is lost"), "{said}");
}

/// Makes the Service lead to this address: for reviews by its slice; for requests that the API server passes on by its Endpoints,
/// which must name a pod that has the address.
fn lead(server: &ApiServer, address: &str) {
    route(server, &[address]);
    let name = format!("replica-{}", address.replace('.', "-"));
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"nodeName": NODE, "containers": [{"name": "webhook", "image": "webhook"}]},
    });
    server.feed("create", &pod).expect("a replica's pod");
    let of_pod = format!("pod {name} -n {NAMESPACE}");
    status(
        server,
        &of_pod,
        &json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}),
    );
    let pod = json!({"kind": "Pod", "name": name, "namespace": NAMESPACE});
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "sidestep-webhook", "namespace": NAMESPACE},
        "subsets": [{
            "addresses": [{"ip": address, "targetRef": pod}], "ports": [{"name": "https-reviews", "port": 8443}],
        }],
    });
    let written = server.feed("apply --server-side", &endpoints);
    written.unwrap_or_else(|error| panic!("the Service's Endpoints: {error}"));
}

/// Waits until a check fails with these words; what it said then.
#[track_caller]
fn assert_comes(words: &str, mut found: impl FnMut() -> (String, String)) -> String {
    let mut last = found();
    let comes = eventually(PATIENCE, || {
        last = found();
        last.0 == "failure" && last.1.contains(words)
    });
    assert!(comes, "never {words:?}: {last:?}");
    last.1
}
