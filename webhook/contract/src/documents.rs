//! The documents of a text, YAML or JSON; the objects in a document, with Lists opened; the pod in an object.

use std::ops::Range;

use serde_json::Value;
use thiserror::Error;
use yaml_serde::Value as Yaml;

use self::plain::as_kubectl_reads;
use crate::keys;

mod plain;

/// Why a text cannot be read. The caller puts the file's name in front.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("document {document}: {message}")]
pub struct SyntaxError {
    /// The document, from 1.
    pub document: usize,
    /// What the parser says, with line and column of the text.
    pub message: String,
}

/// A document: as it was written, and what it says.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its number in the text, from 1. Documents that say nothing are not counted.
    pub number: usize,
    /// The document without its marker.
    pub text: String,
    /// Where the document stands in the whole text, in bytes.
    pub at: Range<usize>,
    /// What the document says.
    pub value: Value,
    /// Whether the document is JSON rather than YAML.
    pub is_json: bool,
}

/// All documents of `text` that say something, in order. A text that starts with `{` is JSON.
pub fn documents(text: &str) -> Result<Vec<Document>, SyntaxError> {
    let whole = text;
    let text = whole.strip_prefix('\u{feff}').unwrap_or(whole);
    let before = whole.len() - text.len();
    let is_json = text.trim_start().starts_with('{');
    let values = if is_json { json(text) } else { yaml(text) };
    (1..)
        .zip(values)
        .map(|(number, value)| {
            let (at, value) = value.map_err(|message| SyntaxError {
                document: number,
                message,
            })?;
            let end = if is_json { "\n" } else { "" };
            Ok(Document {
                number,
                text: format!("{}{end}", &text[at.clone()]),
                at: before + at.start..before + at.end,
                value,
                is_json,
            })
        })
        .collect()
}

type Values<'a> = Box<dyn Iterator<Item = Result<(Range<usize>, Value), String>> + 'a>;

/// One value after the other, through YAML's own type: unlike JSON's, it refuses a key that is given twice.
fn json(text: &str) -> Values<'_> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Yaml>();
    Box::new(std::iter::from_fn(move || {
        let start = stream.byte_offset();
        let value = match stream.next()? {
            Ok(value) => value,
            Err(error) => return Some(Err(format!("not valid JSON: {error}"))),
        };
        let written = &text[start..stream.byte_offset()];
        let start = start + written.len() - written.trim_start().len();
        let at = start..start + written.trim().len();
        let value = serde_json::to_value(value).map_err(|error| error.to_string());
        Some(value.map(|value| (at, value)))
    }))
}

fn yaml(text: &str) -> Values<'_> {
    let parts = parts(text).into_iter();
    Box::new(parts.map(move |Part { line, at }| {
        let text = &text[at.clone()];
        let value = from_yaml(text).map_err(|error| {
            // The parser counts lines from the text that it is given.
            let padded = "\n".repeat(line) + text;
            from_yaml(&padded).err().unwrap_or(error)
        })?;
        Ok((at, value))
    }))
}

fn from_yaml(text: &str) -> Result<Value, String> {
    let wrong = |error: yaml_serde::Error| format!("not valid YAML: {error}");
    let mut value: Yaml = yaml_serde::from_str(&as_kubectl_reads(text)).map_err(wrong)?;
    value.apply_merge().map_err(wrong)?;
    serde_json::to_value(value).map_err(|error| format!("not JSON: {error}"))
}

/// A document of a YAML text.
#[derive(Debug)]
struct Part {
    /// How many lines of the whole text stand before it.
    line: usize,
    /// Where it stands in the whole text, in bytes.
    at: Range<usize>,
}

fn says_something(text: &str) -> bool {
    let mut first_words = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    first_words.any(|word| !word.starts_with('#') && word != "...")
}

/// The text between markers. A line that starts with `---` is a marker wherever it stands, in a block of text too; what
/// follows on the same line belongs to the document. A line `...` ends a document, and directives (`%YAML 1.2`) may stand
/// before one.
fn parts(text: &str) -> Vec<Part> {
    let starting = |line, start| Part {
        line,
        at: start..start,
    };
    let mut parts = vec![starting(0, 0)];
    let mut end = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let Some(part) = parts.last_mut() else { break };
        end += line.len();
        let after_marker = |marker| {
            let rest = line.strip_prefix(marker)?;
            (rest.is_empty() || rest.starts_with(char::is_whitespace)).then_some(rest.trim_start())
        };
        if let Some(rest) = after_marker("---") {
            let line = if rest.is_empty() { number + 1 } else { number };
            parts.push(Part {
                line,
                at: end - rest.len()..end,
            });
        } else if after_marker("...").is_some() {
            part.at.end = end;
            parts.push(starting(number + 1, end));
        } else if line.starts_with('%') && !says_something(&text[part.at.clone()]) {
            *part = starting(number + 1, end);
        } else {
            part.at.end = end;
        }
    }
    parts.retain(|part| says_something(&text[part.at.clone()]));
    parts
}

/// An object in a document.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    /// Where it stands in the document, as a JSON pointer.
    pub path: String,
    /// Its kind; empty if it has none. In a typed list, where the API server leaves out the kind of the items, the list's
    /// kind tells.
    pub kind: &'a str,
    /// The object itself.
    pub value: &'a Value,
}

/// Where objects hold the template of their pods: workloads, OpenShift's, Argo's, Kruise's and Knative's among them; a
/// PodTemplate; a CronJob.
const TEMPLATES: [&str; 3] = [
    "/spec/template",
    "/template",
    "/spec/jobTemplate/spec/template",
];

/// Every object in what a document says: the outermost one first, and the items of a list behind the list.
pub fn objects(document: &Value) -> Vec<Object<'_>> {
    let mut objects = Vec::new();
    collect(document, String::new(), "", &mut objects);
    objects
}

fn collect<'a>(value: &'a Value, path: String, implied: &'a str, objects: &mut Vec<Object<'a>>) {
    let kind = match value.get("kind") {
        Some(kind) => kind.as_str().unwrap_or_default(),
        None if value.is_object() => implied,
        None => "",
    };
    let items = value.get("items").and_then(Value::as_array);
    let items = kind.strip_suffix("List").zip(items);
    let inside = path.clone();
    objects.push(Object { path, kind, value });
    if let Some((of_items, items)) = items {
        for (index, item) in items.iter().enumerate() {
            collect(item, format!("{inside}/items/{index}"), of_items, objects);
        }
    }
}

impl<'a> Object<'a> {
    /// The pod, or pod template, in the object: where it stands in the document, and the pod itself. A template is known by
    /// its containers, whatever the object's kind.
    pub fn pod(&self) -> Option<(String, &'a Value)> {
        if self.kind == "Pod" {
            return Some((self.path.clone(), self.value));
        }
        let value = self.value;
        let pod_at = |path: &str| Some(value.pointer(path)?).filter(|pod| has_containers(pod));
        let (path, pod) = TEMPLATES
            .iter()
            .find_map(|path| Some((path, pod_at(path)?)))?;
        Some((format!("{}{path}", self.path), pod))
    }

    /// Where an `istio-init` stands in an object in which no pod is known, as JSON pointers into the document.
    pub fn unknown_inits(&self) -> Vec<String> {
        let mut places = Vec::new();
        if self.pod().is_none() && !self.kind.ends_with("List") {
            find_inits(self.value, &self.path, &mut places);
        }
        places
    }

    /// How to call a field of the object in a message: `items[0].spec`. The object itself is `.` at a document's top.
    pub fn field(&self, field: &str) -> String {
        let mut name = String::new();
        let steps = self.path.split('/').chain([field]);
        for step in steps.filter(|step| !step.is_empty() && *step != ".") {
            if step.starts_with(|c: char| c.is_ascii_digit()) {
                name.extend(["[", step, "]"]);
            } else {
                name.extend([if name.is_empty() { "" } else { "." }, step]);
            }
        }
        if name.is_empty() {
            ".".to_owned()
        } else {
            name
        }
    }
}

fn has_containers(pod: &Value) -> bool {
    pod.pointer("/spec/containers").is_some_and(Value::is_array)
}

fn find_inits(value: &Value, path: &str, places: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                find_inits(value, &format!("{path}/{key}"), places);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let place = format!("{path}/{index}");
                let name = item["name"].as_str().unwrap_or_default();
                if keys::INITS.contains(&name) && item["args"].is_array() {
                    places.push(place);
                } else {
                    find_inits(item, &place, places);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        let documents = documents(text).expect("documents");
        documents
            .into_iter()
            .map(|document| document.text)
            .collect()
    }

    #[test]
    fn parts_are_split_at_markers_and_comments_alone_are_no_document() {
        let text = "# head\n---\na: 1\n--- # note\nb: |\n  ---x\n---\n\n---\nc: 3";
        assert_eq!(texts(text), ["a: 1\n", "# note\nb: |\n  ---x\n", "c: 3"]);
    }

    #[test]
    fn ends_of_documents_and_directives_belong_to_no_document() {
        let text = "%YAML 1.2\n---\na: 1\n...\nb: |\n  x\n\n%c\n...\n";
        assert_eq!(
            texts("%YAML 1.2\n---\na: 1\n...\nb: 2\n...\n"),
            ["a: 1\n...\n", "b: 2\n...\n"]
        );
        assert!(
            documents(text).is_err(),
            "a directive stands before a document only"
        );
    }

    #[test]
    fn every_document_knows_its_place_in_the_text() {
        for text in [
            "\u{feff}# head\n---\na: 1\n--- # note\nb: 2\n...\n# c\n%YAML 1.2\n---\nc: 3",
            "\u{feff} {\"a\":1}\n {\"b\":2}",
        ] {
            for document in documents(text).expect("documents") {
                assert_eq!(text[document.at].trim_end(), document.text.trim_end());
            }
        }
    }

    #[test]
    fn json_objects_may_follow_each_other() {
        assert_eq!(
            texts("{\"a\":1}\n {\"b\":2}\n"),
            ["{\"a\":1}\n", "{\"b\":2}\n"]
        );
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        for text in ["a: 1\na: 2\n", "{\"a\": 1, \"a\": 2}"] {
            assert!(documents(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_names_the_line_of_the_whole_text() {
        for (text, line) in [
            ("a: 1\n---\nb: 2\n---\nc: [\n", "line 6"),
            ("a: 1\n---\nb: 1\nb: 2\n", "line 3"),
            ("{\"a\": 1}\n{\"b\":\n]}", "line 3"),
        ] {
            let error = documents(text).expect_err("bad syntax").to_string();
            assert!(error.contains(line), "{error}");
        }
    }

    #[test]
    fn lists_are_opened_and_every_object_knows_its_place() {
        let text = "kind: List\nitems:\n- kind: Secret\n- kind: PodList\n  items: [{}, null]\n";
        let documents = documents(text).expect("a document");
        let objects = objects(&documents[0].value);
        let found: Vec<_> = objects
            .iter()
            .map(|object| {
                (
                    object.kind,
                    object.field("spec"),
                    object.pod().map(|(path, _)| path),
                )
            })
            .collect();
        let field = str::to_owned;
        assert_eq!(
            found,
            [
                ("List", field("spec"), None),
                ("Secret", field("items[0].spec"), None),
                ("PodList", field("items[1].spec"), None),
                (
                    "Pod",
                    field("items[1].items[0].spec"),
                    Some(field("/items/1/items/0"))
                ),
                ("", field("items[1].items[1].spec"), None),
            ]
        );
    }
}
