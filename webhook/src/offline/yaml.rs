//! JSON values as YAML that every reader takes for the same values.
//!
//! kubectl reads YAML 1.1, where a plain `yes`, `on`, `0777`, `1_000` or `12:30` is no text. So a text stands plain only if
//! it looks like a word. The libraries do not serve: `yaml_serde` writes `yes`, `12:30:45` and `2001-01-01` plain, and
//! `serde-saphyr`, which quotes all of them, writes other bytes than `mutate` always has (`"true"`, `1.0e+300`).

use std::fmt::Write as _;

use serde_json::Value;

/// What readers of YAML 1.1 or 1.2 take for something other than a text, in lower case.
const NOT_TEXTS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];

/// A document, with a line end at the end.
pub(super) fn document(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => block(&mut out, value, 0),
        Value::Array(items) if !items.is_empty() => block(&mut out, value, 0),
        Value::String(text) => out.push_str(&line(text)),
        other => out.push_str(&other.to_string()),
    }
    if !out.ends_with('\n') {
        out.push('\n');
    }
    out
}

/// An object or a list that is not empty. The first line's indentation is there already.
fn block(out: &mut String, value: &Value, indent: usize) {
    let mut first = true;
    let mut start = |out: &mut String| {
        if !std::mem::take(&mut first) {
            let _infallible = write!(out, "{:indent$}", "");
        }
    };
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                start(out);
                out.push_str(&line(key));
                out.push(':');
                // Lists stand no deeper than their key, as everybody writes them for Kubernetes.
                let inner = if value.is_array() { indent } else { indent + 2 };
                if is_block(value) {
                    let _infallible = write!(out, "\n{:inner$}", "");
                    block(out, value, inner);
                } else {
                    let _infallible = writeln!(out, " {}", scalar(value, indent + 2));
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                start(out);
                out.push_str("- ");
                if is_block(item) {
                    block(out, item, indent + 2);
                } else {
                    let _infallible = writeln!(out, "{}", scalar(item, indent + 2));
                }
            }
        }
        other => out.push_str(&scalar(other, indent)),
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn scalar(value: &Value, indent: usize) -> String {
    match value {
        Value::String(text) => lines(text, indent).unwrap_or_else(|| line(text)),
        // Null, booleans, numbers and what is empty are written as in JSON.
        other => other.to_string(),
    }
}

/// A text of several lines as it is, where nothing in it needs quotes.
fn lines(text: &str, indent: usize) -> Option<String> {
    let (body, chomp) = match text.strip_suffix('\n') {
        Some(body) => (body, ""),
        None => (text, "-"),
    };
    let plain = |line: &str| {
        !line.starts_with(char::is_whitespace)
            && !line.ends_with(char::is_whitespace)
            && !line.contains(is_special)
    };
    if !text.contains('\n')
        || body.is_empty()
        || body.starts_with('\n')
        || body.ends_with('\n')
        || !body.split('\n').all(plain)
    {
        return None;
    }
    let mut out = format!("|{chomp}");
    for line in body.split('\n') {
        let indent = if line.is_empty() { 0 } else { indent };
        let _infallible = write!(out, "\n{:indent$}{line}", "");
    }
    Some(out)
}

/// A text on one line.
fn line(text: &str) -> String {
    if is_word(text) {
        text.to_owned()
    } else if text.contains(is_special) {
        quoted(text)
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

/// Letters first, or a flag's dashes and letters; then nothing that means anything in YAML.
fn is_word(text: &str) -> bool {
    let behind_dashes = text.strip_prefix("--").or_else(|| text.strip_prefix('-'));
    let start = behind_dashes.unwrap_or(text);
    let harmless = |c: char| c.is_ascii_alphanumeric() || "_./-=,+@%$()~".contains(c);
    let mut chars = text.chars().peekable();
    let mut inside = true;
    while let Some(c) = chars.next() {
        let followed = chars.peek().is_some_and(|next| harmless(*next));
        inside &= harmless(c) || c == ':' && followed || c == ' ' && followed;
    }
    let starts = |c: char| c.is_ascii_alphabetic() || c == '/' && behind_dashes.is_none();
    start.starts_with(starts) && inside && !NOT_TEXTS.contains(&text.to_ascii_lowercase().as_str())
}

/// What only double quotes can hold: control characters, and what some readers take for a line's end.
fn is_special(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_special(c) => {
                let _infallible = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn it_looks_as_everybody_writes_it() {
        let value = json!({
            "args": ["-p", "15001", "--redirect-dns=true", "*", ""],
            "empty": {"a": {}, "b": []},
            "env": [{"name": "X", "value": "a\nb\n"}, {"name": "Y", "value": "c\nd"}],
            "image": "istio/proxyv2:1.31.1",
            "nested": [["a"], [[1, null]]],
        });
        let text = "args:\n- -p\n- '15001'\n- --redirect-dns=true\n- '*'\n- ''\nempty:\n  a: {}\n  b: []\nenv:\n- name: X\n  \
                    value: |\n    a\n    b\n- name: 'Y'\n  value: |-\n    c\n    d\nimage: istio/proxyv2:1.31.1\nnested:\n- - \
                    a\n- - - 1\n    - null\n";
        assert_eq!(document(&value), text);
    }

    #[test]
    fn what_yaml_1_1_takes_for_something_else_is_quoted() {
        for text in [
            "yes",
            "No",
            "ON",
            "off",
            "y",
            "N",
            "True",
            "null",
            "~",
            "0777",
            "1_000",
            "0b1",
            "0x1F",
            "12:30:45",
            "1e3",
            ".5",
            "=",
            "<<",
            "2001-01-01",
            "-1",
            "-.inf",
            "+1",
            "- a",
            "a: b",
            "a #b",
            "a:",
            "---",
            "...",
            "? a",
            "&a",
            "*a",
            "!a",
            "%a",
            "@a",
            "`a`",
            "a ",
            " a",
        ] {
            assert_eq!(document(&json!(text)), format!("'{text}'\n"));
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["[ -~]{0,6}", "[a\n \t:#'\"-]{0,6}", any::<String>()];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                btree_map(text.clone(), inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_reads_back_as_it_was(value in values()) {
            let text = document(&value);
            let back: Value = yaml_serde::from_str(&text).expect(&text);
            prop_assert_eq!(back, value, "{}", text);
        }
    }
}
