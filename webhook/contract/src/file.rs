//! Pod files: YAML with any number of documents, or JSON, holding Pods and Lists of Pods.

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use thiserror::Error;
use yaml_serde::Value;

/// Why a text is no Pod file. The caller puts the file's name in front.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileError {
    /// Not YAML, or not JSON.
    #[error("document {document}: {message}")]
    Syntax {
        /// Which document, from 1.
        document: usize,
        /// What the parser says, with line and column.
        message: String,
    },
    /// Something other than a Pod.
    #[error("document {document}: {path}: found {found}, expected {expected}")]
    Kind {
        /// Which document, from 1.
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
        /// Which document, from 1.
        document: usize,
        /// The field.
        path: String,
        /// What was found and what was expected.
        message: String,
    },
}

/// All Pods in `text`, in order. Empty documents are skipped.
pub fn pods_from_str(text: &str) -> Result<Vec<Pod>, FileError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut pods = Vec::new();
    for (document, value) in (1..).zip(documents(text)) {
        let value = value.map_err(|message| FileError::Syntax { document, message })?;
        Reader { document }.read(value, "", &mut pods)?;
    }
    Ok(pods)
}

type Documents<'a> = Box<dyn Iterator<Item = Result<Value, String>> + 'a>;

/// One type of value for both formats; unlike JSON's own it refuses a key that is given twice.
fn documents(text: &str) -> Documents<'_> {
    if text.trim_start().starts_with('{') {
        let stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        return Box::new(stream.map(|value| value.map_err(|e| format!("not valid JSON: {e}"))));
    }
    let stream = yaml_serde::Deserializer::from_str(text);
    Box::new(stream.map(|document| {
        let mut value = Value::deserialize(document).map_err(|e| format!("not valid YAML: {e}"))?;
        value
            .apply_merge()
            .map_err(|e| format!("not valid YAML: {e}"))?;
        Ok(value)
    }))
}

struct Reader {
    document: usize,
}

impl Reader {
    /// Adds the Pods in `value`, which stands at `path` of the document.
    fn read(&self, value: Value, path: &str, pods: &mut Vec<Pod>) -> Result<(), FileError> {
        if value.is_null() {
            return Ok(());
        }
        let kind = self.word(&value, path, "kind")?;
        let version = self.word(&value, path, "apiVersion")?;
        if !["Pod", "List", "PodList"].contains(&kind.as_str()) {
            let found = format!("{kind:?} ({version})");
            return Err(self.wrong(path, "kind", &found, "Pod or List"));
        }
        if version != "v1" {
            let found = format!("{version:?} (kind {kind})");
            return Err(self.wrong(path, "apiVersion", &found, "v1"));
        }
        if kind == "Pod" {
            pods.push(self.pod(value, path)?);
            return Ok(());
        }
        self.items(value, path, kind == "PodList", pods)
    }

    fn items(
        &self,
        mut list: Value,
        path: &str,
        typed: bool,
        pods: &mut Vec<Pod>,
    ) -> Result<(), FileError> {
        let items = match list.get_mut("items").map(std::mem::take) {
            None | Some(Value::Null) => return Ok(()),
            Some(Value::Sequence(items)) => items,
            Some(other) => return Err(self.wrong(path, "items", &shown(&other), "a list")),
        };
        for (index, item) in items.into_iter().enumerate() {
            let path = join(path, &format!("items[{index}]"));
            // The API server leaves kind and apiVersion out of the items of a PodList.
            if typed && item.get("kind").is_none() {
                pods.push(self.pod(item, &path)?);
            } else {
                self.read(item, &path, pods)?;
            }
        }
        Ok(())
    }

    fn pod(&self, value: Value, path: &str) -> Result<Pod, FileError> {
        serde_path_to_error::deserialize(value).map_err(|error| FileError::Field {
            document: self.document,
            path: join(path, &error.path().to_string()),
            message: error.into_inner().to_string(),
        })
    }

    /// The text in a field that every object has.
    fn word(&self, value: &Value, path: &str, field: &str) -> Result<String, FileError> {
        let Some(object) = value.as_mapping() else {
            let path = if path.is_empty() { "." } else { path };
            return Err(self.wrong(path, "", &shown(value), "a Pod"));
        };
        match object.get(field) {
            Some(Value::String(word)) => Ok(word.clone()),
            Some(other) => Err(self.wrong(path, field, &shown(other), "a text")),
            None => Err(self.wrong(path, field, "nothing", "a Pod (v1)")),
        }
    }

    fn wrong(&self, path: &str, field: &str, found: &str, expected: &'static str) -> FileError {
        FileError::Kind {
            document: self.document,
            path: join(path, field),
            found: found.to_owned(),
            expected,
        }
    }
}

fn join(path: &str, field: &str) -> String {
    match (path, field) {
        ("", field) => field.to_owned(),
        (path, "" | ".") => path.to_owned(),
        (path, field) => format!("{path}.{field}"),
    }
}

/// A value for an error message, not longer than a line.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(value) => format!("{:?}", value.chars().take(60).collect::<String>()),
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Tagged(value) => value.tag.to_string(),
    }
}
