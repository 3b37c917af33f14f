//! What `mutate` prints keeps all that it does not change: comments, order, style.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use std::collections::BTreeSet;
use std::fs;

use common::{fixture, mutated, with_file};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use sidestep_contract::documents::documents;
use sidestep_webhook::offline::{Document, Printed, mutate};
use sidestep_webhook::settings::Settings;

fn texts() -> Vec<(String, String)> {
    let files = with_file("pod.yaml").into_iter();
    let files = files.chain(with_file("injected.yaml"));
    let texts = files.map(|(name, file)| (name, fs::read_to_string(file).expect("a text")));
    texts.collect()
}

fn values(text: &str) -> Vec<Value> {
    let documents = documents(text).unwrap_or_else(|error| panic!("{error} in\n{text}"));
    documents.into_iter().map(|one| one.value).collect()
}

/// What is printed for the text; it says what the patches make of it, and nothing is lost.
fn printed(text: &str) -> String {
    let documents = mutate(text, "default", &Settings::default()).expect("a text to work on");
    let after = values(text).into_iter().zip(&documents);
    let after = after.map(|(mut value, Document { patch, .. })| {
        json_patch::patch(&mut value, patch).expect("a patch made for it");
        value
    });
    let after: Vec<_> = after.collect();
    let printed = Printed::new(text, &documents);
    assert_eq!(printed.warnings, Vec::<String>::new(), "{text}");
    assert_eq!(values(&printed.text), after, "{}", printed.text);
    printed.text
}

/// The lines of `before` that are not in `after`, by their numbers.
fn gone(before: &str, after: &str) -> BTreeSet<usize> {
    let diff = similar::TextDiff::from_lines(before, after);
    let changes = diff.iter_all_changes();
    let gone = changes.filter(|change| change.tag() == similar::ChangeTag::Delete);
    gone.filter_map(|change| change.old_index()).collect()
}

/// The text with a comment before a line, or at its end. The same text where that would not be a comment.
fn commented(text: &str, comments: &[(usize, bool, String)]) -> String {
    let mut whole = String::new();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let mut line = line.to_owned();
        for (_, before, comment) in comments.iter().filter(|(at, ..)| *at == number) {
            if *before {
                let indent = line.len() - line.trim_start().len();
                line.insert_str(0, &format!("{:indent$}{comment}\n", ""));
            } else {
                line.insert_str(line.trim_end().len(), &format!("  {comment}"));
            }
        }
        whole.push_str(&line);
    }
    whole
}

#[test]
fn every_fixture_keeps_its_lines() {
    for (name, text) in texts() {
        let gone = gone(&text, &printed(&text)).len();
        let pods = text.matches("name: istio-init").count().max(1);
        assert!(gone <= 30 * pods, "{name}: {gone} lines are gone");
    }
}

#[test]
fn ends_of_lines_and_of_the_file_stay() {
    let text = yaml_serde::to_string(&fixture("client")).expect("YAML");
    let after = printed(&text);
    let unix = |text: &str| text.replace('\n', "\r\n");
    assert_eq!(printed(&unix(&text)), unix(&after));
    assert_eq!(printed(text.trim_end()), after.trim_end());
    let blanks = |text: &str| text.replace("spec:\n", "spec:  \n\n   \n\n");
    assert_eq!(printed(&blanks(&text)), blanks(&after));
}

#[test]
fn what_stands_between_documents_stays() {
    let pod = yaml_serde::to_string(&fixture("client")).expect("YAML");
    let around = |pod: &str| {
        format!("\u{feff}# head\n%YAML 1.2\n---\n{pod}...\n# c\n--- # third\n{pod}\n---\n# none\n")
    };
    assert_eq!(printed(&around(&pod)), around(&printed(&pod)));
}

#[test]
fn what_cannot_be_kept_is_said_and_reads_as_it_should() {
    // The alias would change with the labels.
    let pod = yaml_serde::to_string(&fixture("client")).expect("YAML");
    let pod = pod.replace("  labels:\n", "  labels: &labels\n");
    let text = format!("kind: A\n--- # of the pod\n{pod}other: *labels\n---\n# end\nkind: B # b\n");
    let documents = mutate(&text, "default", &Settings::default()).expect("documents");
    let printed = Printed::new(&text, &documents);
    let [warning] = printed.warnings.as_slice() else {
        panic!("{:?}", printed.warnings);
    };
    assert!(
        warning.starts_with("document 2: comments are not kept: the edited text would"),
        "{warning}"
    );
    let read = values(&printed.text);
    assert_eq!(read[1]["spec"], mutated(&fixture("client"))["spec"]);
    assert_eq!(read[1]["other"], fixture("client")["metadata"]["labels"]);
    assert!(printed.text.ends_with("---\n# end\nkind: B # b\n"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn comments_stay_where_nothing_is_replaced(
        (_, text) in prop::sample::select(texts()),
        places in vec((any::<Index>(), any::<bool>()), 1..12),
    ) {
        let lines = text.lines().count();
        let said = values(&text);
        let gone = gone(&text, &printed(&text));
        let mut comments = Vec::new();
        for (number, (place, before)) in places.into_iter().enumerate() {
            let comment = (place.index(lines), before, format!("# comment {number}."));
            let with = commented(&text, std::slice::from_ref(&comment));
            // In a block of text it would be none.
            if documents(&with).is_ok() && values(&with) == said {
                comments.push(comment);
            }
        }
        let after = printed(&commented(&text, &comments));
        for (line, before, comment) in comments {
            let inside = gone.contains(&line) && (!before || gone.contains(&line.saturating_sub(1)));
            prop_assert!(inside || after.contains(&comment), "{comment} at {line}\n{after}");
        }
    }
}
