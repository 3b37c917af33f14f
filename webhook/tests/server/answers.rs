//! Good requests.

use hyper::Version;
use serde_json::{Value, json};
use sidestep_contract::keys;
use sidestep_runtime::Readiness;
use sidestep_webhook::admission::review_of;

use crate::client::Client;
use crate::common::{applied, by_default, fixture, fixtures, mutated, read, with_metadata};
use crate::under_test::UnderTest;

fn review(operation: &str, pod: &Value, old: &Value) -> String {
    let mut review = review_of("u", pod);
    review["request"]["operation"] = operation.into();
    review["request"]["oldObject"] = old.clone();
    review.to_string()
}

#[tokio::test]
async fn every_fixture_gets_what_mutate_makes_of_it() {
    let server = UnderTest::start().await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = Client::connect(&server, version).await;
        for (name, file) in fixtures() {
            let pod = read(&file);
            let answer = client.mutate(&name, &pod).await;
            let response = answer.response();
            assert_eq!(answer.status, 200);
            assert_eq!(response["uid"], name.as_str());
            assert_eq!(response["allowed"], true);
            if mutated(&pod) == pod {
                assert_eq!(response.get("patch"), None, "{name}");
            } else {
                assert_eq!(applied(&pod, &answer.patch()), mutated(&pod), "{name}");
                let word = by_default(&pod).decision.word();
                assert_eq!(response["auditAnnotations"]["decision"], word);
            }
        }
    }
}

#[tokio::test]
async fn what_is_decided_is_counted_in_the_same_words() {
    let server = UnderTest::start().await;
    let mut client = Client::connect(&server, Version::HTTP_2).await;
    for name in ["client", "cni", "tproxy", "multus"] {
        client.mutate("u", &fixture(name)).await;
    }
    let text = server.metrics.text(&Readiness::default(), None);
    let text = text.expect("metrics");
    for (decision, count) in [("accelerated", 2), ("tproxy", 1), ("several-networks", 1)] {
        let line = format!(
            "sidestep_webhook_reviews_total{{path=\"mutate\",decision=\"{decision}\"}} {count}\n"
        );
        assert!(text.contains(&line), "{text}");
    }
}

#[tokio::test]
async fn a_warning_reaches_the_author() {
    let server = UnderTest::start().await;
    let mut client = Client::connect(&server, Version::HTTP_2).await;
    let pod = with_metadata("tproxy", "labels", keys::ACCELERATED, "true");
    let response = client.mutate("u", &pod).await.response();
    let warning = response["warnings"][0].as_str().expect("a warning");
    assert!(
        warning.contains("sidestep.dev/accelerated removed"),
        "{warning}"
    );
}

#[tokio::test]
async fn only_the_creation_of_a_pod_changes_it() {
    let server = UnderTest::start().await;
    let mut client = Client::connect(&server, Version::HTTP_2).await;
    let pod = fixture("client");
    let mut of_another = review_of("u", &pod);
    of_another["request"]["kind"] = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    let mut of_status = review_of("u", &pod);
    of_status["request"]["subResource"] = "status".into();
    for body in [
        review("UPDATE", &pod, &pod),
        review("DELETE", &Value::Null, &pod),
        of_another.to_string(),
        of_status.to_string(),
    ] {
        let response = client.post("/mutate", body).await.response();
        assert_eq!(response, json!({"uid": "u", "allowed": true}));
    }
}

#[tokio::test]
async fn a_pod_not_yet_in_its_namespace_and_without_a_name_is_decided() {
    let server = UnderTest::start().await;
    let mut client = Client::connect(&server, Version::HTTP_2).await;
    let mut pod = fixture("client");
    pod["metadata"] = json!({"generateName": "x-"});
    let answer = client.mutate("u", &pod).await;
    let after = applied(&pod, &answer.patch());
    assert_eq!(after["metadata"]["labels"][keys::ACCELERATED], "true");
    assert_eq!(after["metadata"].get("namespace"), None);
}
