//! The body of a request → an answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use json_patch::Patch;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::Value;
use sidestep_contract::{IstioInit, Policy, istio_init, istio_inits};
use sidestep_webhook::admission::{Answer, Request};
use sidestep_webhook::cluster::{Cluster, Namespace};
use sidestep_webhook::settings::Settings;

/// Whatever arrives is answered by a review. A patch fits, and once is enough; what is accelerated has the policy it had,
/// and a gate.
pub fn check(body: &[u8]) {
    let (word, response) = answer(body);
    let Some(patch) = response.get("patch") else {
        return;
    };
    assert_eq!(response["allowed"], true, "who is refused gets no patch");
    let patch = STANDARD
        .decode(patch.as_str().expect("a text"))
        .expect("base64");
    let patch: Patch = serde_json::from_slice(&patch).expect("a patch");
    let mut review: Value = serde_json::from_slice(body).expect("what was answered is JSON");
    let before = Pod::deserialize(&review["request"]["object"]).expect("a patched pod is a pod");
    json_patch::patch(&mut review["request"]["object"], &patch).expect("a patch that fits");

    let again = review.to_string();
    let (word_again, response) = answer(again.as_bytes());
    assert_eq!(response.get("patch"), None, "twice is once");
    assert_eq!(word_again, word);
    let after = Pod::deserialize(&review["request"]["object"]).expect("it is still a pod");
    // The API server itself refuses two containers of one name.
    if !["accelerated", "mirror-pod", "several-istio-init"].contains(&word) {
        let gated = istio_init(&after).is_ok_and(|init| init.is_gate || init.is_changed_gate);
        assert!(!gated, "{word} beside a gate");
    }
    if word == "accelerated" {
        keeps_policy(&before, &after);
        // The label is for such pods only.
        assert!(istio_init(&after).is_ok_and(|init| init.is_gate));
    }
}

/// As the server answers.
fn answer(body: &[u8]) -> (&'static str, Value) {
    let answer = match Request::parse(body) {
        Ok(request) => {
            let known = Namespace::default();
            request.mutate(Some(&known), &Cluster::assumed(), &Settings::default())
        }
        Err(refusal) => Answer::from(refusal),
    };
    assert!([200, 400].contains(&answer.status));
    let mut review: Value = serde_json::from_slice(&answer.body()).expect("a review");
    assert!(review["response"]["uid"].is_string());
    (answer.word, review["response"].take())
}

/// The gate's own probe may have got another port. A gate that would never open, since something changed its policy, becomes
/// the one that it was.
fn keeps_policy(before: &Pod, after: &Pod) {
    let after = Policy::from_pod(after).expect("an accelerated pod has a policy");
    // A gate beside a fresh container is replaced: there was no one policy before.
    let Ok(inits) = istio_inits(before) else {
        return;
    };
    let Ok([init]) = <[IstioInit<'_>; 1]>::try_from(inits) else {
        return;
    };
    let original = init.original();
    let original = original.map(|original| IstioInit::read(init.index, &original).policy);
    let policies = [Some(init.policy), original];
    let mut policies = policies.into_iter().flatten().flatten().peekable();
    let there_was_one = policies.peek().is_some();
    let kept = policies.any(|policy| {
        let probe_port = after.probe_port;
        Policy {
            probe_port,
            ..policy
        } == after
    });
    assert!(kept || !there_was_one, "{after}");
}
