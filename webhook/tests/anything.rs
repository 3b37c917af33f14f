//! Whatever arrives, there is an answer: a review, and a patch that fits if there is one. `PROPTEST_CASES`
//! says how much is tried.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::pods;
use json_patch::Patch;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use sidestep_webhook::admission::{Answer, Request, review_of};
use sidestep_webhook::cluster::{Cluster, Namespace};
use sidestep_webhook::offline::{self, Printed};
use sidestep_webhook::settings::Settings;

/// As the server answers.
fn answer(body: &[u8]) -> Value {
    let answer = match Request::parse(body) {
        Ok(request) => {
            let known = Namespace::default();
            request.mutate(Some(&known), &Cluster::assumed(), &Settings::default())
        }
        Err(refusal) => Answer::from(refusal),
    };
    assert!([200, 400].contains(&answer.status));
    let mut review: Value = serde_json::from_slice(&answer.body()).expect("a review");
    review["response"].take()
}

fn json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        Just("name".to_owned()),
        Just("istio-init".to_owned()),
        Just("args".to_owned()),
        Just("labels".to_owned()),
        "[a~/]{0,3}"
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        key.clone().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(key.clone(), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Puts `value` somewhere into `document`: `steps` choose the way down.
fn replace(document: &mut Value, steps: &[Index], value: Value) {
    let inner = steps.split_first().and_then(|(step, rest)| {
        let inner = match document {
            Value::Object(fields) if !fields.is_empty() => {
                let place = step.index(fields.len());
                fields.values_mut().nth(place)
            }
            Value::Array(items) if !items.is_empty() => {
                let place = step.index(items.len());
                items.get_mut(place)
            }
            _ => None,
        };
        inner.map(|inner| replace(inner, rest, value.clone()))
    });
    if inner.is_none() {
        *document = value;
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered(body in vec(any::<u8>(), 0..200)) {
        answer(&body);
    }

    #[test]
    fn any_json_is_answered(body in json()) {
        answer(body.to_string().as_bytes());
    }

    #[test]
    fn a_real_review_with_anything_in_it_is_answered_with_a_patch_that_fits(
        (_, mut pod) in prop::sample::select(pods()),
        changes in vec((vec(any::<Index>(), 1..9), json()), 1..4),
        cut in prop::option::of(any::<Index>()),
    ) {
        for (steps, value) in changes {
            replace(&mut pod, &steps, value);
        }
        let review = review_of("u", &pod).to_string();
        if let Some(cut) = cut {
            answer(&review.as_bytes()[..cut.index(review.len())]);
        }
        let response = answer(review.as_bytes());
        prop_assert_eq!(&response["uid"], "u");
        prop_assert_eq!(&response["allowed"], true);
        if let Some(patch) = response.get("patch") {
            let patch = STANDARD.decode(patch.as_str().expect("a text")).expect("base64");
            let patch: Patch = serde_json::from_slice(&patch).expect("a patch");
            let mut after = pod.clone();
            prop_assert!(json_patch::patch(&mut after, &patch).is_ok(), "{:?}", patch);
            let again = answer(review_of("u", &after).to_string().as_bytes());
            prop_assert_eq!(again.get("patch"), None, "twice is once");
        }
    }

    #[test]
    fn a_file_with_anything_in_it_is_mutated_or_refused(
        (_, mut pod) in prop::sample::select(pods()),
        changes in vec((vec(any::<Index>(), 0..9), json()), 1..4),
    ) {
        for (steps, value) in changes {
            replace(&mut pod, &steps, value);
        }
        for text in [pod.to_string(), yaml_serde::to_string(&pod).expect("YAML")] {
            if let Ok(documents) = offline::mutate(&text, "n", &Settings::default()) {
                for document in &documents {
                    document.patch_text();
                }
                Printed::new(&text, &documents).diff("x", &text);
            }
        }
    }
}
