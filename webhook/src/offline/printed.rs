//! What is printed for a whole text: everything between its documents stays too.

use serde_json::Value;
use sidestep_contract::documents::documents;

use super::{Document, text};

/// A text as it is printed.
#[derive(Clone, Debug)]
pub struct Printed {
    /// The text, with its pods changed.
    pub text: String,
    /// Whose comments could not be kept, and why.
    pub warnings: Vec<String>,
    /// Its documents, each as it is printed.
    documents: Vec<String>,
    is_json: bool,
}

impl Printed {
    /// `text`, of which [`mutate`](super::mutate) made `documents`. To the letter where nothing changes.
    pub fn new(text: &str, documents: &[Document]) -> Self {
        let (mut texts, mut warnings) = (Vec::new(), Vec::new());
        for document in documents {
            let (mut new, reason) = document.change();
            let before = text[..document.source.at.start].trim_start_matches('\u{feff}');
            if reason.is_some() && !before.is_empty() && !before.ends_with('\n') {
                // Behind a marker no block can start.
                new.insert(0, '\n');
            }
            let number = document.source.number;
            let warning = |reason| format!("document {number}: comments are not kept: {reason}");
            warnings.extend(reason.map(warning));
            texts.push(new);
        }
        let mut whole = replaced(text, documents, &texts);
        if !says(&whole, documents) {
            whole = Document::joined(documents, Document::mutated);
            warnings.push("comments between its documents are not kept".to_owned());
        }
        Self {
            text: whole,
            warnings,
            documents: texts,
            is_json: documents.iter().any(|document| document.source.is_json),
        }
    }

    /// What changes in `text`, as a unified diff that `patch -p1` applies to the file `name`. Nothing if nothing changes.
    pub fn diff(&self, name: &str, text: &str) -> String {
        text::diff(name, text, &self.text)
    }

    /// Several texts in one that reads as all of them. YAML's want a marker between them, and before a first one that would be
    /// taken for JSON; where all are JSON, they stand by themselves. One text stays as it is.
    pub fn joined(texts: &[Self]) -> String {
        if let [one] = texts {
            return one.text.clone();
        }
        let texts = texts.iter().filter(|text| !text.documents.is_empty());
        let all_json = texts.clone().all(|text| text.is_json);
        let pieces = texts.flat_map(|text| {
            if text.is_json {
                text.documents.iter().map(String::as_str).collect()
            } else {
                vec![text.text.trim_start_matches('\u{feff}')]
            }
        });
        let mut all = String::new();
        for piece in pieces {
            let wants_marker = !all.is_empty() && !piece.starts_with("---");
            if !all_json && (wants_marker || piece.trim_start().starts_with('{')) {
                all.push_str("---\n");
            }
            all.push_str(piece);
            if !all.ends_with('\n') {
                all.push('\n');
            }
        }
        all
    }
}

/// The text with new texts for the documents that change.
fn replaced(text: &str, documents: &[Document], texts: &[String]) -> String {
    let mut whole = String::new();
    let mut done = 0;
    for (document, new) in documents.iter().zip(texts) {
        let at = document.source.at.clone();
        whole.push_str(&text[done..at.start]);
        if document.patch.0.is_empty() {
            whole.push_str(&text[at.clone()]);
        } else if document.source.is_json {
            whole.push_str(new.trim_end());
        } else {
            whole.push_str(new);
        }
        done = at.end;
    }
    whole.push_str(&text[done..]);
    whole
}

/// Whether the text reads as what the documents become.
fn says(text: &str, mutated: &[Document]) -> bool {
    documents(text).is_ok_and(|read| {
        let read: Vec<Value> = read.into_iter().map(|document| document.value).collect();
        let wanted: Vec<Value> = mutated.iter().map(Document::after).collect();
        read == wanted
    })
}
