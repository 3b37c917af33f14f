//! `sidestep check` from a desk: clusters without controllers and kubelets, so what those write is written by the test.

use std::fs;

use serde_json::{Value, json};
use sidestep_kit::desk::{sidestep, sidestep_with};
use sidestep_kit::{apiserver::ApiServer, chart, needs, parts};

use crate::world::{SIDESTEP, accelerated, agent, node, shut, write_status};

/// An injector's registration, as istioctl makes it; nobody answers.
fn injector(server: &ApiServer, name: &str) {
    let registration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name, "labels": {"app": "sidecar-injector", "istio.io/rev": "default"}},
        "webhooks": [{
            "name": "rev.namespace.sidecar-injector.istio.io", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"service": {"name": "istiod", "namespace": "istio-system"}}, "failurePolicy": "Ignore",
        }],
    });
    server
        .feed("create", &registration)
        .expect("a registration");
}

/// A control plane of this version.
fn istiod(server: &ApiServer, version: &str) {
    server.must("create namespace istio-system");
    let labels = json!({"app": "istiod", "istio.io/rev": "default"});
    let image = format!("registry.invalid/istio/pilot:{version}-distroless");
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "istiod", "namespace": "istio-system", "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "discovery", "image": image}]},
        }},
    });
    server.feed("create", &deployment).expect("a Deployment");
    let status = json!({"status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}});
    write_status(server, "deployment istiod -n istio-system", &status);
}

/// A cluster on which Sidestep may be installed.
fn fit() -> ApiServer {
    let server = ApiServer::start();
    node(&server, "one", "amd64", "6.1.0-13-amd64", &json!({}));
    istiod(&server, "1.31.0");
    injector(&server, "istio-sidecar-injector");
    server
}

fn level(level: &str) -> impl Fn((String, String)) -> bool {
    move |(found, _)| found == level
}

#[needs(apiserver)]
fn before_installing_a_cluster_is_fit_or_it_is_said_what_is_not() {
    let server = fit();
    let said = sidestep(&server, "check --pre -o json");
    assert_eq!(
        (said.code, &said.json()["level"]),
        (Some(0), &"good".into()),
        "{said:?}"
    );

    node(&server, "old", "amd64", "5.15.0-91", &json!({}));
    let said = sidestep(&server, "check --pre -o json");
    assert_eq!(said.code, Some(0), "a warning is no failure: {said:?}");
    let (found, message) = said.found("nodes");
    assert_eq!(found, "warning");
    assert!(
        message.contains("old (kernel-too-old, Linux 5.15.0-91)"),
        "{message}"
    );

    injector(&server, "zz-injector");
    let said = sidestep(&server, "check --pre -o json");
    assert_eq!(said.code, Some(2), "{said:?}");
    let (found, message) = said.found("webhook-order");
    assert!(
        found == "failure" && message.contains("zz-injector"),
        "{message}"
    );

    // As people see it.
    let said = sidestep(&server, "check --pre");
    assert!(
        said.out
            .contains("\n✗ webhook-order: asked after sidestep-webhook"),
        "{said:?}"
    );
    assert!(
        !said.out.contains('\u{1b}'),
        "no colours where there is no terminal: {said:?}"
    );
    let said = sidestep(&server, "check --pre --ascii");
    assert!(
        said.out.is_ascii() && said.out.contains("\n[FAIL] webhook-order"),
        "{said:?}"
    );
}

#[needs(apiserver, part("helm"))]
fn what_is_installed_and_does_not_run_is_named_part_by_part() {
    let server = fit();
    let file = parts::workspace().join("manifests/install.yaml");
    server.must(&format!("apply --server-side -f {}", file.display()));
    agent(&server, "one");
    accelerated(&server, "waits", "one", &shut());
    server.must("create namespace shop");
    server.must("label namespace shop istio-injection=enabled");

    let said = sidestep(&server, "check -o json");
    assert_eq!(said.code, Some(2), "{said:?}");
    for good in [
        "rights",
        "nodes",
        "istiod",
        "injectors",
        "webhook-order",
        "namespace",
        "registration",
        "admission-policies",
    ] {
        assert!(level("good")(said.found(good)), "{good}: {said:?}");
    }
    for (check, words) in [
        ("webhook", "none of 2 replicas"),
        ("agents", "no node should have an agent"),
        ("ca-bundle", "missing"),
        ("serving-certificate", "Secret is not there"),
        ("webhook-answers", "no replica of the webhook is ready"),
        ("agent-answers", "connection refused"),
    ] {
        let (found, message) = said.found(check);
        assert!(
            found == "failure" && message.contains(words),
            "{check}: {found}: {message}"
        );
    }
    for (check, words) in [
        ("leader", "no Lease"),
        (
            "would-accelerate",
            "would not inject a new pod of namespace shop",
        ),
        ("waiting-pods", "default/waits"),
    ] {
        let (found, message) = said.found(check);
        assert!(
            found == "warning" && message.contains(words),
            "{check}: {found}: {message}"
        );
    }
    assert!(level("good")(said.found("events")), "{said:?}");

    // What the webhook's leader and the agents report.
    for (name, controller) in [("one", "sidestep.dev/agent"), ("other", "somebody.else")] {
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name, "namespace": "default"},
            "type": "Warning", "reason": "NotArmed", "action": "Arm", "note": "no sandbox", "reportingController": controller,
            "reportingInstance": "x", "eventTime": now(), "regarding": {"kind": "Pod", "namespace": "default", "name": "waits"},
        });
        server.feed("create", &event).expect("an Event");
    }
    let said = sidestep(&server, "check -o json");
    let wanted = "1 NotArmed (last: Pod/default/waits: no sandbox)";
    assert_eq!(
        said.found("events"),
        ("warning".to_owned(), wanted.to_owned())
    );
}

fn now() -> String {
    k8s_openapi::jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
        .to_string()
}

/// The roles in the command line's README are enough for a person who has nothing else.
#[needs(apiserver, part("helm"))]
fn the_documented_rights_are_enough() {
    let server = fit();
    let file = parts::workspace().join("manifests/install.yaml");
    server.must(&format!("apply --server-side -f {}", file.display()));
    agent(&server, "one");
    let readme = parts::workspace().join("agent/cli/README.md");
    let readme = fs::read_to_string(readme).expect("the README");
    let (_, rights) = readme.split_once("\n## Rights\n").expect("its chapter");
    let (_, roles) = rights.split_once("```yaml\n").expect("an example");
    let (roles, _) = roles.split_once("```").expect("its end");
    for role in chart::documents(roles) {
        server.feed("create", &role).expect("a role");
    }
    server.must("create clusterrolebinding desk --clusterrole=sidestep-desk --user=desk");
    server.must(&format!(
        "create rolebinding desk -n {SIDESTEP} --role=sidestep-desk --user=desk"
    ));
    let text = fs::read_to_string(server.kubeconfig()).expect("a kubeconfig");
    let mut kubeconfig: Value = serde_json::from_str(&text).expect("it is JSON");
    kubeconfig["users"][0]["user"]["as"] = "desk".into();
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), kubeconfig.to_string()).expect("it can be written");

    let said = sidestep_with(&server, file.path(), "check -o json");
    let (found, message) = said.found("rights");
    let wanted = "you may not: create pods in default";
    assert_eq!((found.as_str(), message.as_str()), ("warning", wanted));
    let all = said.json();
    for one in all["checks"].as_array().expect("checks") {
        let message = one["message"].as_str().expect("a message");
        let of_trials = one["check"] == "webhook-answers" || one["check"] == "would-accelerate";
        assert!(of_trials || !message.contains("forbidden"), "{one:#}");
    }
    let said = sidestep_with(&server, file.path(), "status -A -o json");
    assert_eq!(said.code, Some(0), "{said:?}");
    let said = sidestep_with(&server, file.path(), "status -o json");
    let cause = said.json()["nodes"][0]["cause"].to_string();
    assert!(
        cause.contains("connection refused"),
        "the API server lets it exec: {cause}"
    );
}
