//! The webhook's work on files: every Pod and every pod template in a text, with the very same decisions.

use std::collections::HashMap;

use json_patch::jsonptr::PointerBuf;
use json_patch::{Patch, PatchOperation};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use thiserror::Error;

use crate::cluster::{Cluster, Namespace};
use crate::decide::{Decision, decide};
use crate::patch;
use crate::settings::Settings;

mod documents;
mod text;
mod yaml;

/// Why a text cannot be worked on. The caller puts the file's name in front.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OfflineError {
    /// Not YAML, or not JSON.
    #[error("document {document}: {message}")]
    Syntax {
        /// Which document, from 1.
        document: usize,
        /// What the parser says.
        message: String,
    },
    /// A pod, or a pod template, that is none.
    #[error("document {document}: {what}: {message}")]
    Pod {
        /// Which document, from 1.
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
    /// What was decided about each pod in it; empty where there is none.
    pub outcomes: Vec<Outcome>,
    /// All changes, with paths from the document's top.
    pub patch: Patch,
    source: String,
    before: Value,
    is_json: bool,
}

/// What was decided about one pod.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Kind, namespace and name of the object that holds it.
    pub what: String,
    /// The decision.
    pub decision: Decision,
    /// What its author is told.
    pub warnings: Vec<String>,
}

/// Decides about every pod in `text`: YAML with any number of documents, or JSON. Objects without a namespace are taken
/// to be in `namespace`. What a namespace says is known where the text holds it.
pub fn mutate(
    text: &str,
    namespace: &str,
    settings: &Settings,
) -> Result<Vec<Document>, OfflineError> {
    let sources = documents::split(text)?;
    let mut namespaces = HashMap::new();
    for source in &sources {
        documents::each(&source.value, &mut |object, _| {
            if object.get("kind").and_then(Value::as_str) == Some("Namespace") {
                namespaces.insert(word(object, "name").to_owned(), labels_of(object));
            }
        });
    }
    let work = Work {
        namespace,
        namespaces,
        settings,
    };
    (1..)
        .zip(sources)
        .map(|(number, source)| work.document(number, source))
        .collect()
}

impl Document {
    /// The document with its pods changed; as it was, to the letter, where nothing changes.
    pub fn mutated(&self) -> String {
        if self.patch.0.is_empty() {
            return self.source.clone();
        }
        text::of(&self.after(), self.is_json)
    }

    /// The patch, for people and as YAML.
    pub fn patch_text(&self) -> String {
        text::of(&json!(self.patch), false)
    }

    /// What changes, as a unified diff.
    pub fn diff(&self, name: &str) -> String {
        let before = text::of(&self.before, self.is_json);
        let after = text::of(&self.after(), self.is_json);
        text::diff(name, &before, &after)
    }

    fn after(&self) -> Value {
        let mut after = self.before.clone();
        // The operations were made for this very document.
        if json_patch::patch(&mut after, &self.patch).is_err() {
            return self.before.clone();
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
    fn document(
        &self,
        document: usize,
        source: documents::Source,
    ) -> Result<Document, OfflineError> {
        let mut outcomes = Vec::new();
        let mut operations = Vec::new();
        let mut failed = None;
        documents::each(&source.value, &mut |object, path| {
            let Some(template) = documents::template(object) else {
                return;
            };
            let (namespace, what) = self.named(object);
            let path = [path, template.as_slice()].concat();
            match self.pod(&source.value, &path, &namespace, what.clone()) {
                Ok((outcome, made)) => {
                    outcomes.push(outcome);
                    operations.extend(made.0);
                }
                Err(message) => {
                    failed.get_or_insert(OfflineError::Pod {
                        document,
                        what,
                        message,
                    });
                }
            }
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(Document {
                outcomes,
                patch: Patch(operations),
                source: source.text,
                before: source.value,
                is_json: source.is_json,
            }),
        }
    }

    /// The pod at `path`, and its patch from the document's top.
    fn pod(
        &self,
        document: &Value,
        path: &[String],
        namespace: &str,
        what: String,
    ) -> Result<(Outcome, Patch), String> {
        let prefix = PointerBuf::from_tokens(path);
        let raw = prefix.resolve(document).unwrap_or(&Value::Null);
        let pod: Pod = serde_path_to_error::deserialize(raw).map_err(|error| error.to_string())?;
        let unknown = Namespace::default();
        let namespace = self.namespaces.get(namespace).unwrap_or(&unknown);
        let verdict = decide(&pod, Some(namespace), &Cluster::assumed(), self.settings);
        let mut made = patch::patch(raw, &verdict);
        for operation in &mut made.0 {
            prepend(&prefix, operation);
        }
        let outcome = Outcome {
            what,
            decision: verdict.decision,
            warnings: verdict.warnings,
        };
        Ok((outcome, made))
    }

    /// An object's namespace, and how to call it.
    fn named(&self, object: &Value) -> (String, String) {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or("Pod");
        let namespace = match word(object, "namespace") {
            "" => self.namespace,
            namespace => namespace,
        };
        let name = match word(object, "name") {
            "" => word(object, "generateName"),
            name => name,
        };
        (namespace.to_owned(), format!("{kind} {namespace}/{name}"))
    }
}

fn prepend(prefix: &PointerBuf, operation: &mut PatchOperation) {
    let path = match operation {
        PatchOperation::Add(add) => &mut add.path,
        PatchOperation::Remove(remove) => &mut remove.path,
        PatchOperation::Replace(replace) => &mut replace.path,
        // `patch` makes none of these.
        PatchOperation::Move(_) | PatchOperation::Copy(_) | PatchOperation::Test(_) => return,
    };
    *path = prefix.concat(path);
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
