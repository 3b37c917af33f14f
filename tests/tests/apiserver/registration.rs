//! Which pods the API server asks the webhook about. Nobody answers here, so that with `failurePolicy: Fail` a pod is
//! refused exactly if it is asked about.

use serde_json::json;
use sidestep_kit::{
    apiserver::ApiServer,
    chart::{object, objects},
    needs,
};

use crate::{
    PATIENCE,
    pods::{forged, gated, injected, plain},
    until_refused,
};

const ASKED: &str = "failed calling webhook \"pods.sidestep.dev\"";

/// A server with the webhook's registration and nothing else of the chart.
fn registered(failure_policy: &str) -> ApiServer {
    let server = ApiServer::start();
    let objects = objects(&[]);
    let mut registration =
        object(&objects, "MutatingWebhookConfiguration", "sidestep-webhook").clone();
    registration["webhooks"][0]["failurePolicy"] = failure_policy.into();
    server.must("create namespace sidestep-system");
    for object in [
        object(&objects, "Service", "sidestep-webhook"),
        &registration,
    ] {
        server.feed("create", object).expect("it can be created");
    }
    server
}

#[needs(apiserver, part("helm"))]
fn injected_pods_and_those_with_our_label_are_asked_about_and_no_others() {
    let server = registered("Fail");
    until_refused(ASKED, || {
        server.feed("create --dry-run=server", &injected("probe"))
    });
    let try_in = |namespace: &str, mut pod: serde_json::Value| {
        pod["metadata"]["namespace"] = namespace.into();
        server.feed("create --dry-run=server", &pod)
    };
    let with_init = |name: &str| {
        let mut pod = plain("pod");
        pod["spec"]["initContainers"] = json!([{"name": name, "image": "i"}]);
        pod
    };
    let of_istio_cni = with_init("istio-validation");
    for pod in [injected("pod"), of_istio_cni, gated("pod"), forged("pod")] {
        let error = try_in("default", pod).expect_err("nobody answers");
        assert!(error.contains(ASKED), "{error}");
    }
    let mut labelled = plain("pod");
    labelled["metadata"]["labels"] = json!({"app": "web"});
    for pod in [plain("pod"), with_init("migrate"), labelled] {
        try_in("default", pod).expect("it is none of our business");
    }
    for namespace in ["kube-system", "sidestep-system"] {
        try_in(namespace, injected("pod")).expect("its namespace is excluded");
    }
}

#[needs(apiserver, part("helm"))]
fn a_pod_is_created_as_it_is_while_nobody_answers() {
    let server = registered("Ignore");
    let pod = injected("survivor");
    // Counted by the API server, so that the test does not pass because the registration is not known yet.
    let ignored = sidestep_kit::process::eventually(PATIENCE, || {
        server
            .feed("create --dry-run=server", &pod)
            .expect("it is created");
        let metrics = server.must("get --raw /metrics");
        metrics.lines().any(|line| {
            line.starts_with("apiserver_admission_webhook_fail_open_count")
                && line.contains("pods.sidestep.dev")
        })
    });
    assert!(ignored, "the webhook was never asked");
    server.feed("create", &pod).expect("it is created");
    let created = server.get("pod survivor");
    assert_eq!(
        created["spec"]["initContainers"][0]["args"],
        pod["spec"]["initContainers"][0]["args"]
    );
}
