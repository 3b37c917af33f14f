//! The chart's life: installed, upgraded, removed.

use std::process::Command;

use serde_json::json;
use sidestep_kit::{apiserver::ApiServer, needs, parts};

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

fn bundle(server: &ApiServer) -> serde_json::Value {
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
