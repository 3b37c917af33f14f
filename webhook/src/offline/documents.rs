//! A text into documents, a document into objects, an object to its pod template.

use serde_json::Value;
use yaml_serde::Value as Yaml;

use super::OfflineError;

/// A document as it was written, and what it says.
pub(super) struct Source {
    pub(super) text: String,
    pub(super) value: Value,
    pub(super) is_json: bool,
}

/// Splits YAML at its document markers, and JSON after each object.
pub(super) fn split(text: &str) -> Result<Vec<Source>, OfflineError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        return split_json(text);
    }
    let mut sources = Vec::new();
    for part in yaml_parts(text) {
        let document = sources.len() + 1;
        let value =
            from_yaml(&part).map_err(|message| OfflineError::Syntax { document, message })?;
        sources.push(Source {
            text: part,
            value,
            is_json: false,
        });
    }
    Ok(sources)
}

/// The text between markers. A line that starts with `---` is a marker wherever it stands, in a block of text too. What
/// stands behind the marker belongs to the document; parts of nothing but comments are none.
fn yaml_parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for line in text.split_inclusive('\n') {
        let behind = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        match behind {
            Some(rest) if rest.trim().is_empty() => parts.push(String::new()),
            Some(rest) => parts.push(rest.trim_start().to_owned()),
            None => {
                if let Some(part) = parts.last_mut() {
                    part.push_str(line);
                }
            }
        }
    }
    let says_something = |part: &String| {
        part.lines().any(|line| {
            let line = line.trim();
            !line.is_empty() && !line.starts_with('#')
        })
    };
    parts.retain(says_something);
    parts
}

/// Through YAML's own type, which unlike JSON's refuses a key that is given twice.
fn from_yaml(text: &str) -> Result<Value, String> {
    let wrong = |error: yaml_serde::Error| format!("not valid YAML: {error}");
    let mut value: Yaml = yaml_serde::from_str(text).map_err(wrong)?;
    value.apply_merge().map_err(wrong)?;
    serde_json::to_value(value).map_err(|error| format!("not JSON: {error}"))
}

fn split_json(text: &str) -> Result<Vec<Source>, OfflineError> {
    let mut sources = Vec::new();
    let mut rest = text;
    while !rest.trim().is_empty() {
        let wrong = |message: String| OfflineError::Syntax {
            document: sources.len() + 1,
            message,
        };
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Yaml>();
        let value = match stream.next() {
            Some(Ok(value)) => serde_json::to_value(value).map_err(|error| error.to_string()),
            Some(Err(error)) => Err(format!("not valid JSON: {error}")),
            None => break,
        };
        let value = value.map_err(wrong)?;
        let (text, behind) = rest.split_at(stream.byte_offset());
        sources.push(Source {
            text: format!("{}\n", text.trim()),
            value,
            is_json: true,
        });
        rest = behind;
    }
    Ok(sources)
}

/// Calls `visit` with every object in a document, Lists opened, and with its path.
pub(super) fn each(document: &Value, visit: &mut impl FnMut(&Value, &[String])) {
    walk(document, &mut Vec::new(), visit);
}

fn walk(object: &Value, path: &mut Vec<String>, visit: &mut impl FnMut(&Value, &[String])) {
    let kind = object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let items = object.get("items").and_then(Value::as_array);
    let Some(items) = items.filter(|_| kind.ends_with("List")) else {
        return visit(object, path);
    };
    for (index, item) in items.iter().enumerate() {
        path.extend(["items".to_owned(), index.to_string()]);
        // The API server leaves the kind out of the items of a typed list.
        if item.get("kind").is_none() && kind != "List" {
            let mut item = item.clone();
            if let Some(fields) = item.as_object_mut() {
                let of_item = kind.strip_suffix("List").unwrap_or_default();
                fields.insert("kind".to_owned(), of_item.into());
            }
            walk(&item, path, visit);
        } else {
            walk(item, path, visit);
        }
        path.truncate(path.len() - 2);
    }
}

/// Where the pod of an object stands in it.
pub(super) fn template(object: &Value) -> Option<Vec<String>> {
    let path: &[&str] = match object.get("kind")?.as_str()? {
        "Pod" => &[],
        "Deployment"
        | "StatefulSet"
        | "DaemonSet"
        | "ReplicaSet"
        | "ReplicationController"
        | "Job" => &["spec", "template"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template"],
        _ => return None,
    };
    let there = path.iter().try_fold(object, |at, key| at.get(key));
    there?;
    Some(path.iter().map(|key| (*key).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_split_at_markers_and_comments_alone_are_no_document() {
        let text = "# head\n---\na: 1\n--- # note\nb: |\n  ---x\n---\n\n---\nc: 3";
        assert_eq!(
            yaml_parts(text),
            ["a: 1\n", "# note\nb: |\n  ---x\n", "c: 3"]
        );
    }

    #[test]
    fn json_objects_may_follow_each_other() {
        let sources = split("{\"a\":1}\n {\"b\":2}\n").expect("two objects");
        let texts: Vec<_> = sources.iter().map(|source| source.text.as_str()).collect();
        assert_eq!(texts, ["{\"a\":1}\n", "{\"b\":2}\n"]);
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        for text in ["a: 1\na: 2\n", "{\"a\": 1, \"a\": 2}"] {
            assert!(split(text).is_err(), "{text}");
        }
    }
}
