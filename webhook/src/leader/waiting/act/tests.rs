use std::sync::Mutex;

use serde_json::{Value, json};
use sidestep_runtime::Readiness;

use super::*;
use crate::leader::fake;

/// What was asked: the method, the last word of the path, and what was sent.
type Asked = Arc<Mutex<Vec<(String, String, Value)>>>;

/// Somebody who attends, and all that the API server is asked; it answers with these codes.
fn attendant(code: impl Fn(&fake::Asked) -> u16 + Send + Sync + 'static) -> (Attendant, Asked) {
    let asked = Asked::default();
    let client = fake::client({
        let asked = Arc::clone(&asked);
        move |question| {
            let path = question.uri.split('?').next().unwrap_or_default();
            let word = path.rsplit('/').next().unwrap_or_default();
            let seen = (
                question.method.to_string(),
                word.to_owned(),
                question.body.clone(),
            );
            asked.lock().expect("nobody panics").push(seen);
            Some(match code(question) {
                200 if question.method == "DELETE" => {
                    (200, json!({"kind": "Status", "status": "Success"}))
                }
                200 => (200, question.body.clone()),
                code => fake::refusal(code),
            })
        }
    });
    let attendant = Attendant {
        client,
        world: Arc::new(World::unknown(None)),
        missing: Arc::default(),
        patience: Patience {
            report: Some(Duration::ZERO),
            delete: Some(Duration::ZERO),
        },
        metrics: Arc::default(),
        agents: Agents {
            namespace: "here".to_owned(),
            selector: "app=agent".to_owned(),
        },
        identity: "one".to_owned(),
    };
    (attendant, asked)
}

fn pod(name: &str) -> Waiting {
    Waiting {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
        place: Place::Gate("node".to_owned()),
        version: Some("7".to_owned()),
        is_replaced: true,
    }
}

fn to_report(names: &[&str]) -> Due {
    Due {
        report: names.iter().map(|name| pod(name)).collect(),
        delete: Vec::new(),
        overdue: names.len(),
    }
}

fn to_delete(names: &[&str]) -> Due {
    let mut due = to_report(names);
    due.delete = std::mem::take(&mut due.report);
    due
}

/// Each question in two words, such as `DELETE pod` and `POST REASON`.
fn words(asked: &Asked) -> Vec<String> {
    let asked = asked.lock().expect("nobody panics");
    let words = asked.iter().map(|(method, word, body)| {
        let what = body["reason"].as_str().unwrap_or(word);
        format!("{method} {what}")
    });
    words.collect()
}

#[tokio::test]
async fn a_pod_about_which_nothing_can_be_done_does_not_keep_it_from_the_others() {
    let (attendant, asked) = attendant(|question| {
        let text = format!("{}{}", question.uri, question.body);
        if text.contains("stubborn") { 403 } else { 200 }
    });
    let mut book = Book::default();
    let all = ["stubborn", "other"];
    let error = attendant.act(to_report(&all), &mut book).await;
    let error = error.expect_err("one was refused");
    assert!(error.contains("refused with 403"), "{error}");
    let error = attendant.act(to_delete(&all), &mut book).await;
    let error = error.expect_err("one was refused");
    assert!(
        error.contains("pod shop/stubborn waits and cannot be deleted"),
        "{error}"
    );
    let wanted = [
        "POST WaitingForSidestep",
        "POST WaitingForSidestep",
        "DELETE stubborn",
        "DELETE other",
        "POST DeletedBySidestep",
    ];
    assert_eq!(words(&asked), wanted);
}

#[tokio::test]
async fn the_pod_that_was_seen_is_deleted_and_no_other_and_only_then_it_is_told() {
    let (attendant, asked) = attendant(|question| match question.uri.as_str() {
        uri if uri.contains("changed") => 409,
        uri if uri.contains("gone") => 404,
        _ => 200,
    });
    let due = to_delete(&["changed", "gone", "seen"]);
    let outcome = attendant.act(due, &mut Book::default()).await;
    assert_eq!(outcome, Ok(()));
    let wanted = [
        "DELETE changed",
        "DELETE gone",
        "DELETE seen",
        "POST DeletedBySidestep",
    ];
    assert_eq!(words(&asked), wanted);
    let asked = asked.lock().expect("nobody panics");
    let preconditions = json!({"uid": "uid-of-seen", "resourceVersion": "7"});
    assert_eq!(asked[2].2["preconditions"], preconditions);
    assert_eq!(asked[3].2["regarding"]["uid"], "uid-of-seen");
    let metrics = attendant
        .metrics
        .text(&Readiness::default(), None)
        .expect("text");
    assert!(
        metrics.contains("waiting_pods_deleted_total 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn no_note_is_longer_than_the_api_server_takes() {
    let (mut attendant, asked) = attendant(|_| 200);
    attendant.agents.selector = "ä".repeat(2000);
    let outcome = attendant
        .act(to_report(&["seen"]), &mut Book::default())
        .await;
    assert_eq!(outcome, Ok(()));
    let asked = asked.lock().expect("nobody panics");
    let note = asked[0].2["note"].as_str().expect("a note");
    assert!((NOTE - 1..=NOTE).contains(&note.len()), "{}", note.len());
}
