//! A file → what `sidestep mutate` makes of it.

use sidestep_webhook::offline::{Document, Printed, mutate};
use sidestep_webhook::settings::Settings;

/// A file is refused, or comes out as one that is mutated already.
pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    let settings = Settings::default();
    let documents = match mutate(text, "default", &settings) {
        Ok(documents) => documents,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for document in &documents {
        let _never_panics = document.patch_text();
    }
    let printed = Printed::new(text, &documents);
    let _never_panics = printed.diff("file.yaml", text);
    let once = printed.text;
    let again = mutate(&once, "default", &settings);
    let again = again.unwrap_or_else(|error| panic!("{error} in what came out:\n{once}"));
    let words = |documents: &[Document]| {
        let outcomes = documents.iter().flat_map(|document| &document.outcomes);
        let words = outcomes.map(|outcome| (outcome.what.clone(), outcome.decision.word()));
        words.collect::<Vec<_>>()
    };
    assert_eq!(words(&again), words(&documents));
    for document in &again {
        assert_eq!(document.patch.0, vec![], "twice is once:\n{once}");
    }
}
