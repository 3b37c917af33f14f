//! Pod files: documents that hold Pods and Lists of Pods, and nothing else.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use thiserror::Error;

use crate::documents::{Object, SyntaxError, documents, objects};

/// Why a text is no Pod file. The caller puts the file's name in front.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileError {
    /// Not YAML, or not JSON.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// Something other than a Pod.
    #[error("document {document}: {path}: found {found}, expected {expected}")]
    Kind {
        /// The document, from 1.
        document: usize,
        /// The field that says so.
        path: String,
        /// What it says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// A field with a value of the wrong type.
    #[error("document {document}: {path}: {message}")]
    Field {
        /// The document, from 1.
        document: usize,
        /// The field.
        path: String,
        /// What was found and what was expected.
        message: String,
    },
}

/// All Pods in `text`, in order.
pub fn pods_from_str(text: &str) -> Result<Vec<Pod>, FileError> {
    let mut pods = Vec::new();
    for document in documents(text)? {
        for object in objects(&document.value) {
            let object = Checked {
                document: document.number,
                object,
            };
            pods.extend(object.pod()?);
        }
    }
    Ok(pods)
}

struct Checked<'a> {
    document: usize,
    object: Object<'a>,
}

impl Checked<'_> {
    /// The Pod that the object is. `None` for null, and for a List, whose items are objects of their own.
    fn pod(&self) -> Result<Option<Pod>, FileError> {
        let Object { kind, value, .. } = self.object;
        let Some(fields) = value.as_object() else {
            return if value.is_null() {
                Ok(None)
            } else {
                Err(self.wrong("", &shown(value), "a Pod"))
            };
        };
        // The kind of an item may be told by its list.
        if fields.contains_key("kind") || kind != "Pod" {
            self.text("kind")?;
            let version = self.text("apiVersion")?;
            if !["Pod", "List", "PodList"].contains(&kind) {
                let found = format!("{kind:?} ({version})");
                return Err(self.wrong("kind", &found, "Pod or List"));
            }
            if version != "v1" {
                let found = format!("{version:?} (kind {kind})");
                return Err(self.wrong("apiVersion", &found, "v1"));
            }
        }
        if kind == "Pod" {
            let pod = serde_path_to_error::deserialize(value);
            return pod.map(Some).map_err(|error| FileError::Field {
                document: self.document,
                path: self.object.field(&error.path().to_string()),
                message: error.into_inner().to_string(),
            });
        }
        match fields.get("items") {
            None | Some(Value::Null | Value::Array(_)) => Ok(None),
            Some(other) => Err(self.wrong("items", &shown(other), "a list")),
        }
    }

    /// The text in a field that every object has.
    fn text(&self, field: &str) -> Result<&str, FileError> {
        match self.object.value.get(field) {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.wrong(field, &shown(other), "a text")),
            None => Err(self.wrong(field, "nothing", "a Pod (v1)")),
        }
    }

    fn wrong(&self, field: &str, found: &str, expected: &'static str) -> FileError {
        FileError::Kind {
            document: self.document,
            path: self.object.field(field),
            found: found.to_owned(),
            expected,
        }
    }
}

/// A value for an error message, not longer than a line.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(value) => format!("{:?}", value.chars().take(60).collect::<String>()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a mapping".to_owned(),
    }
}
