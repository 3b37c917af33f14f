//! The chart's life: installed, upgraded, removed.

use std::{fs, process::Command};

use serde_json::{Value, json};
use sidestep_kit::{apiserver::ApiServer, chart, desk::sidestep_with, needs, parts};

pub(crate) const BUNDLE: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t";
const KINDS: &str = "deployments,daemonsets,services,serviceaccounts,secrets,poddisruptionbudgets,networkpolicies,\
    roles,rolebindings,clusterroles,clusterrolebindings,mutatingwebhookconfigurations,\
    validatingadmissionpolicies,validatingadmissionpolicybindings";

fn helm(server: &ApiServer, words: &str) -> String {
    let chart = parts::workspace().join("manifests/chart");
    let mut command: Command = server.command("helm");
    command.args(words.split_whitespace().map(|word| match word {
        "CHART" => chart.clone().into_os_string(),
        word => word.into(),
    }));
    command.arg("--namespace=sidestep-system");
    parts::finish(&mut command).unwrap_or_else(|error| panic!("helm {words}: {error}"))
}

/// What of ours is in the cluster.
fn ours(server: &ApiServer) -> String {
    server.must(&format!(
        "get {KINDS} -A -l app.kubernetes.io/part-of=sidestep -o name --ignore-not-found"
    ))
}

fn bundle(server: &ApiServer) -> Value {
    let registration = server.get("mutatingwebhookconfiguration sidestep-webhook");
    registration["webhooks"][0]["clientConfig"]["caBundle"].clone()
}

/// What the webhook's leader does, with the rights that it has.
fn write_bundle(server: &ApiServer) {
    let mut registration = server.get("mutatingwebhookconfiguration sidestep-webhook");
    registration["webhooks"][0]["clientConfig"]["caBundle"] = BUNDLE.into();
    // Raw: else kubectl takes it for what was last applied.
    let words = "replace --as=system:serviceaccount:sidestep-system:sidestep-webhook --raw \
        /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/sidestep-webhook?fieldManager=sidestep-webhook";
    server
        .feed(words, &registration)
        .expect("the leader may do that");
}

#[needs(apiserver, part("helm"))]
fn helm_installs_upgrades_without_touching_the_ca_and_leaves_nothing() {
    let server = ApiServer::start();
    let file = parts::workspace().join("manifests/namespace.yaml");
    server.must(&format!("apply -f {}", file.display()));

    let notes = helm(&server, "install sidestep CHART");
    assert!(notes.contains("Every pod that Istio injects"), "{notes}");
    assert_eq!(bundle(&server), json!(null));
    write_bundle(&server);

    for side in ["--server-side=true", "--server-side=false"] {
        let set = format!(
            "upgrade sidestep CHART {side} --set webhook.timeoutSeconds=2 --set enrolment=opt-in"
        );
        let notes = helm(&server, &set);
        assert!(notes.contains("No pod is accelerated yet"), "{notes}");
        assert_eq!(bundle(&server), BUNDLE, "{side}");
    }
    let registration = server.get("mutatingwebhookconfiguration sidestep-webhook");
    assert_eq!(registration["webhooks"][0]["timeoutSeconds"], 2);

    // The hook's Job wants a node to run on: it is the cluster's tests' to try.
    helm(&server, "uninstall sidestep --no-hooks");
    assert_eq!(ours(&server), "");
}

#[needs(apiserver, part("helm"))]
fn applying_the_file_again_does_not_touch_the_ca() {
    let file = parts::workspace().join("manifests/install.yaml");
    for side in ["--server-side", "--server-side=false"] {
        let server = ApiServer::start();
        let apply = format!("apply {side} -f {}", file.display());
        server.must(&apply);
        write_bundle(&server);
        server.must(&apply);
        assert_eq!(bundle(&server), BUNDLE, "{side}");
        server.must(&format!("delete --wait=false -f {}", file.display()));
        assert_eq!(ours(&server), "");
    }
}

#[needs(apiserver, part("helm"))]
fn what_helm_test_runs_may_read_all_that_it_checks_but_the_key() {
    let server = ApiServer::start();
    let file = parts::workspace().join("manifests/install.yaml");
    server.must(&format!("apply --server-side -f {}", file.display()));
    let of_test = |object: &Value| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        name.starts_with("sidestep-test") && object["kind"] != "Pod"
    };
    let objects: Vec<_> = chart::objects(&[]).into_iter().filter(of_test).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    server.feed("create", &list).expect("rights");

    let token = server.must("create token sidestep-test -n sidestep-system");
    let admin = fs::read_to_string(server.kubeconfig()).expect("a file");
    let mut config: Value = serde_json::from_str(&admin).expect("JSON");
    config["users"][0]["user"] = json!({"token": token.trim()});
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = folder.path().join("kubeconfig");
    fs::write(&kubeconfig, config.to_string()).expect("a file");
    let said = sidestep_with(&server, &kubeconfig, "check -o json");
    let (level, message) = said.found("rights");
    assert_eq!(level, "warning", "{said:?}");
    assert!(
        message.contains("get secrets/sidestep-webhook-tls"),
        "{message}"
    );
    for allowed in ["pods", "nodes", "leases", "services", "deployments"] {
        assert!(!message.contains(allowed), "{allowed}: {message}");
    }
}
