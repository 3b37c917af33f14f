//! Bad requests get a review that says what is wrong, and the server stays up.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Version};
use serde_json::{Value, json};
use sidestep_webhook::admission::review_of;
use sidestep_webhook::server::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{Client, post, tls, trusting};
use crate::common::{applied, fixture, istio_init};
use crate::under_test::{NAME, UnderTest};

const UID: &str = "705ab4f5-6393-11e8-b7cc-42010a800002";

fn review(change: impl Fn(&mut Value)) -> String {
    let mut review = review_of(UID, &fixture("client"));
    change(&mut review);
    review.to_string()
}

fn long_review(bytes: usize) -> String {
    let filler = "x".repeat(bytes);
    format!(
        "{{\"kind\":\"AdmissionReview\",\"apiVersion\":\"admission.k8s.io/v1\",\"request\":{{\"uid\":\"{UID}\",\
         \"object\":{{\"metadata\":{{\"annotations\":{{\"a\":\"{filler}\"}}}}}}}}}}"
    )
}

#[tokio::test]
async fn what_is_no_review_is_refused_with_the_reason() {
    let server = UnderTest::start().await;
    let cases: &[(&str, u16, &str)] = &[
        ("", 400, "not JSON"),
        ("{\"request\": {\"uid\": \"u-1\", ", 400, "not JSON"),
        (&"[".repeat(100_000), 400, "not JSON"),
        ("[]", 400, "expected admission.k8s.io/v1"),
        ("\"x\"", 400, "expected admission.k8s.io/v1"),
        (
            &review(|r| r["kind"] = "Pod".into()),
            400,
            "found \"admission.k8s.io/v1\" \"Pod\"",
        ),
        (
            &review(|r| r["apiVersion"] = "admission.k8s.io/v1beta1".into()),
            400,
            "found \"admission.k8s.io/v1beta1\"",
        ),
        (
            &review(|r| r["request"] = Value::Null),
            400,
            "request cannot be read",
        ),
        (
            &review(|r| r["request"]["kind"] = json!(5)),
            400,
            "request cannot be read",
        ),
        (&long_review(5 << 20), 413, "at most 4194304 bytes"),
        (&long_review(10 << 20), 413, "at most 4194304 bytes"),
    ];
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (body, status, message) in cases {
            let mut client = Client::connect(&server, version).await;
            let answer = client.post("/mutate", (*body).to_owned()).await;
            let start = &body[..body.len().min(80)];
            assert_eq!(answer.status, *status, "{start}");
            let response = answer.response();
            assert_eq!(response["allowed"], false, "{start}");
            let said = response["status"]["message"].as_str().expect("a message");
            assert!(said.contains(message), "{said}");
        }
        let mut client = Client::connect(&server, version).await;
        assert_eq!(client.mutate("u", &fixture("client")).await.status, 200);
    }
}

#[tokio::test]
async fn a_wrong_type_method_or_path_is_refused() {
    let server = UnderTest::start().await;
    let mut client = Client::connect(&server, Version::HTTP_11).await;
    let body = || Full::new(Bytes::from(review(|_| ())));
    let plain = Request::post(format!("https://{NAME}/mutate"))
        .header("content-type", "text/plain")
        .body(body());
    let untyped = Request::post(format!("https://{NAME}/mutate")).body(body());
    let put = Request::put(format!("https://{NAME}/mutate"))
        .header("content-type", "application/json")
        .body(body());
    for (request, status) in [
        (plain.expect("a request"), 415),
        (untyped.expect("a request"), 415),
        (put.expect("a request"), 405),
        (post("/", review(|_| ())), 404),
        (post("/validate", review(|_| ())), 404),
    ] {
        let answer = client.send(request).await.expect("an answer");
        assert_eq!(answer.status, status);
        assert_eq!(answer.response()["allowed"], false);
    }
    let get = Request::get(format!("https://{NAME}/mutate")).body(Full::default());
    let answer = client.send(get.expect("a request")).await;
    assert_eq!(answer.expect("an answer").status, 405);
}

#[tokio::test]
async fn a_pod_that_cannot_be_read_is_let_through_with_a_warning() {
    let server = UnderTest::start().await;
    let mut client = Client::connect(&server, Version::HTTP_2).await;
    for (field, value) in [
        ("spec", json!(5)),
        ("metadata", json!([])),
        ("spec", json!({"initContainers": 1})),
    ] {
        let body = review(|r| r["request"]["object"][field] = value.clone());
        let answer = client.post("/mutate", body).await;
        let response = answer.response();
        assert_eq!((answer.status, &response["allowed"]), (200, &json!(true)));
        let warning = response["warnings"][0].as_str().expect("a warning");
        assert!(warning.contains("stays as it is"), "{warning}");
        assert_eq!(response.get("patch"), None);
    }
}

#[tokio::test]
async fn a_pod_with_a_thousand_containers_and_odd_names_is_decided_like_any_other() {
    let server = UnderTest::start().await;
    let mut client = Client::connect(&server, Version::HTTP_2).await;
    let mut pod = fixture("client");
    pod["metadata"]["annotations"]["a/b~c\"\\\u{1F600}"] = "~1/~0".into();
    let inits = pod["spec"]["initContainers"]
        .as_array_mut()
        .expect("a list");
    let gate_at = 1000;
    for index in 0..gate_at {
        inits.insert(0, json!({"name": format!("i{index}/~"), "image": "x"}));
    }
    let after = applied(&pod, &client.mutate("u", &pod).await.patch());
    assert_eq!(istio_init(&after), gate_at);
    assert_eq!(
        after["spec"]["initContainers"][gate_at]["securityContext"]["runAsUser"],
        1337
    );
}

#[tokio::test]
async fn a_body_that_stalls_or_ends_early_is_given_up() {
    let server = UnderTest::with(Limits {
        time: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    let mut stream = tls(server.address, trusting(&server.trusted))
        .await
        .expect("a connection");
    let head = format!(
        "POST /mutate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n\
         {{\"request\":{{\"uid\":\"{UID}\","
    );
    stream
        .write_all(head.as_bytes())
        .await
        .expect("a request's start");
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer[..length]);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("took too long"), "{answer}");
}
