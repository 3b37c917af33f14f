//! The webhook's work on files: every Pod and every pod template in a text gets the decision that the server would make.

use std::collections::HashMap;

use json_patch::jsonptr::{Pointer, PointerBuf};
use json_patch::{Patch, PatchOperation};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use sidestep_contract::documents::{self, Object, SyntaxError, documents, objects};
use thiserror::Error;

use crate::cluster::{Cluster, Namespace};
use crate::decide::{Decision, Verdict, decide};
use crate::patch;
use crate::settings::Settings;

mod kept;
mod printed;
mod text;
mod yaml;

pub use printed::Printed;

/// Why a text cannot be worked on. The caller puts the file's name in front.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OfflineError {
    /// Not YAML, or not JSON.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// A pod, or a pod template, that is none.
    #[error("document {document}: {what}: {message}")]
    Pod {
        /// The document, from 1.
        document: usize,
        /// The object.
        what: String,
        /// What is wrong with it.
        message: String,
    },
}

/// One document of a text.
#[derive(Clone, Debug)]
pub struct Document {
    /// The decision about each pod in the document; empty if it holds none.
    pub outcomes: Vec<Outcome>,
    /// All changes, with paths from the document's top.
    pub patch: Patch,
    /// Where an `istio-init` stands in an object whose pods are not known: the object, and a JSON pointer.
    pub unknown: Vec<(String, String)>,
    source: documents::Document,
}

/// The decision about one pod.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Kind, namespace and name of the object that holds it.
    pub what: String,
    /// The decision.
    pub decision: Decision,
    /// Warnings for its author.
    pub warnings: Vec<String>,
}

/// Decides about every pod in `text`: YAML with any number of documents, or JSON. Objects without a namespace are taken
/// to be in `namespace`. Labels and annotations of a namespace count if the text holds the Namespace.
pub fn mutate(
    text: &str,
    namespace: &str,
    settings: &Settings,
) -> Result<Vec<Document>, OfflineError> {
    let mut all = mutate_files(&[text], namespace, settings).map_err(|(_, error)| error)?;
    Ok(all.pop().unwrap_or_default())
}

/// The same for several texts; a Namespace in one of them counts for all. The error comes with the place of the text that
/// cannot be worked on.
pub fn mutate_files(
    texts: &[&str],
    namespace: &str,
    settings: &Settings,
) -> Result<Vec<Vec<Document>>, (usize, OfflineError)> {
    let sources = (0..).zip(texts).map(|(file, text)| {
        let documents = documents(text);
        documents.map_err(|error| (file, OfflineError::from(error)))
    });
    let sources = sources.collect::<Result<Vec<_>, _>>()?;
    let documents = sources.iter().flatten();
    let objects = documents.flat_map(|source| objects(&source.value));
    let namespaces = objects.filter(|object| object.kind == "Namespace");
    let namespaces = namespaces
        .map(|object| {
            (
                word(object.value, "name").to_owned(),
                labels_of(object.value),
            )
        })
        .collect();
    let work = Work {
        namespace,
        namespaces,
        settings,
    };
    let files = (0..).zip(sources);
    let files = files.map(|(file, sources)| {
        let documents = sources.into_iter().map(|source| work.document(source));
        documents
            .collect::<Result<_, _>>()
            .map_err(|error| (file, error))
    });
    files.collect()
}

impl Document {
    /// The document with its pods changed; as it was, to the letter, in everything else.
    pub fn mutated(&self) -> String {
        self.change().0
    }

    /// The same; and why a document of YAML had to be printed anew, which loses its comments and style.
    fn change(&self) -> (String, Option<String>) {
        if self.patch.0.is_empty() {
            return (self.source.text.clone(), None);
        }
        let after = self.after();
        let anew = || text::of(&after, self.source.is_json);
        if self.source.is_json {
            return (anew(), None);
        }
        match kept::changed(&self.source.text, &self.source.value, &after) {
            Ok(text) => (text, None),
            Err(reason) => (anew(), Some(reason)),
        }
    }

    /// The patch, for people and as YAML.
    pub fn patch_text(&self) -> String {
        text::of(&json!(self.patch), false)
    }

    /// `text` of every document, in one text that reads as these documents again. YAML's want a marker between them, and
    /// before a first one that would be taken for JSON; where all are JSON, they stand by themselves.
    pub fn joined<'a>(
        documents: impl IntoIterator<Item = &'a Self, IntoIter: Clone>,
        text: impl Fn(&Self) -> String,
    ) -> String {
        let documents = documents.into_iter();
        let all_json = documents.clone().all(|document| document.source.is_json);
        let mut all = String::new();
        for document in documents {
            let text = text(document);
            let braced = text.trim_start().starts_with('{');
            if !(all_json && braced) && (!all.is_empty() || braced) {
                all.push_str("---\n");
            }
            all.push_str(&text);
            if !all.ends_with('\n') {
                all.push('\n');
            }
        }
        all
    }

    fn after(&self) -> Value {
        let mut after = self.source.value.clone();
        // The operations were made for this very document.
        if json_patch::patch(&mut after, &self.patch).is_err() {
            return self.source.value.clone();
        }
        after
    }
}

struct Work<'a> {
    namespace: &'a str,
    namespaces: HashMap<String, Namespace>,
    settings: &'a Settings,
}

impl Work<'_> {
    fn document(&self, source: documents::Document) -> Result<Document, OfflineError> {
        let mut outcomes = Vec::new();
        let mut operations = Vec::new();
        let mut unknown = Vec::new();
        for object in objects(&source.value) {
            let places = object.unknown_inits().into_iter();
            unknown.extend(places.map(|place| (self.named(&object).1, place)));
            let Some((place, pod)) = object.pod() else {
                continue;
            };
            let (namespace, what) = self.named(&object);
            let (verdict, patch) =
                self.pod(pod, &namespace)
                    .map_err(|message| OfflineError::Pod {
                        document: source.number,
                        what: what.clone(),
                        message,
                    })?;
            outcomes.push(Outcome {
                what,
                decision: verdict.decision,
                warnings: verdict.warnings,
            });
            let prefix = PointerBuf::parse(place).unwrap_or_default();
            let patch = patch.0.into_iter();
            operations.extend(patch.map(|operation| prepended(&prefix, operation)));
        }
        Ok(Document {
            outcomes,
            patch: Patch(operations),
            unknown,
            source,
        })
    }

    /// What is decided about a pod, and its patch.
    fn pod(&self, raw: &Value, namespace: &str) -> Result<(Verdict, Patch), String> {
        let pod: Pod = serde_path_to_error::deserialize(raw).map_err(|error| error.to_string())?;
        let unknown = Namespace::default();
        let namespace = self.namespaces.get(namespace).unwrap_or(&unknown);
        let verdict = decide(&pod, Some(namespace), &Cluster::assumed(), self.settings);
        let patch = patch::patch(raw, &verdict);
        Ok((verdict, patch))
    }

    /// An object's namespace, and how to call it.
    fn named(&self, object: &Object<'_>) -> (String, String) {
        let kind = object.kind;
        let namespace = match word(object.value, "namespace") {
            "" => self.namespace,
            namespace => namespace,
        };
        let name = match word(object.value, "name") {
            "" => word(object.value, "generateName"),
            name => name,
        };
        (namespace.to_owned(), format!("{kind} {namespace}/{name}"))
    }
}

/// The same operation with its path from the document's top.
fn prepended(prefix: &Pointer, mut operation: PatchOperation) -> PatchOperation {
    match &mut operation {
        PatchOperation::Add(add) => add.path = prefix.concat(&add.path),
        PatchOperation::Remove(remove) => remove.path = prefix.concat(&remove.path),
        PatchOperation::Replace(replace) => replace.path = prefix.concat(&replace.path),
        // `patch` makes none of these.
        PatchOperation::Move(_) | PatchOperation::Copy(_) | PatchOperation::Test(_) => {}
    }
    operation
}

/// A text in an object's metadata.
fn word<'a>(object: &'a Value, field: &str) -> &'a str {
    let metadata = object.get("metadata");
    let value = metadata.and_then(|metadata| metadata.get(field));
    value.and_then(Value::as_str).unwrap_or_default()
}

fn labels_of(object: &Value) -> Namespace {
    let texts = |field| {
        let metadata = object.get("metadata");
        let all = metadata.and_then(|metadata| metadata.get(field)?.as_object());
        let all = all.into_iter().flatten();
        all.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect()
    };
    Namespace {
        labels: texts("labels"),
        annotations: texts("annotations"),
    }
}
