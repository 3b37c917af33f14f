//! A changed YAML document in which everything else stays as its author wrote it: comments, order, quotes, flow style.
//!
//! The edits are made by `yaml-edit`, whose tree holds every byte of the text. `yamlpatch` cannot append to a flow list, writes
//! `off` plain, and needs a newer rustc than the one pinned here.

use std::panic;
use std::str::FromStr as _;

use serde_json::{Map, Value, json};
use sidestep_contract::documents::documents;
use yaml_edit::{Document, Mapping, Sequence, YamlNode};

use super::text;

/// `text`, which says `before`, so changed that it says `after`; or why that cannot be done. What comes out was read again.
pub(super) fn changed(text: &str, before: &Value, after: &Value) -> Result<String, String> {
    // A fault of the editor's must not stop the command.
    let edited = panic::catch_unwind(|| edited(text, before, after));
    let edited = edited.map_err(|_| "the editor failed")??;
    // Behind a marker, where a brace does not make it JSON.
    match documents(&format!("---\n{edited}")).as_deref() {
        Ok([one]) if one.value == *after => Ok(edited),
        Ok(_) => Err("the edited text would say something else".to_owned()),
        Err(error) => Err(format!("the edited text could not be read: {error}")),
    }
}

fn edited(text: &str, before: &Value, after: &Value) -> Result<String, String> {
    let document = Document::from_str(text).map_err(|error| error.to_string())?;
    let top = document.as_mapping().map(YamlNode::Mapping);
    top.and_then(|top| edit(&top, before, after))
        .ok_or("it has a form that the editor does not know")?;
    Ok(document.to_string())
}

/// Makes `after` of `node`, which says `before`. None where it must be replaced as a whole: only its owner can do that.
fn edit(node: &YamlNode, before: &Value, after: &Value) -> Option<()> {
    match (node, before, after) {
        (YamlNode::Mapping(fields), Value::Object(before), Value::Object(after)) => {
            edit_fields(fields, before, after)
        }
        (YamlNode::Sequence(items), Value::Array(before), Value::Array(after)) => {
            edit_items(items, before, after)
        }
        _ => None,
    }
}

fn edit_fields(
    fields: &Mapping,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
) -> Option<()> {
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        fields.remove(key.as_str());
    }
    for (key, value) in after {
        let old = before.get(key);
        if old == Some(value) {
            continue;
        }
        let inside = fields.get(key.as_str()).zip(old);
        let done = inside.and_then(|(node, old)| edit(&node, old, value));
        if done.is_none() {
            fields.set(key.as_str(), made(value)?);
        }
    }
    Some(())
}

/// The items that both ends share stay. Of the others, the first ones become those in the same place.
fn edit_items(items: &Sequence, before: &[Value], after: &[Value]) -> Option<()> {
    let start = before.iter().zip(after).take_while(|(a, b)| a == b).count();
    let (before, after) = (&before[start..], &after[start..]);
    let ends = before.iter().rev().zip(after.iter().rev());
    let shared = ends.take_while(|(a, b)| a == b).count();
    let before = &before[..before.len() - shared];
    let after = &after[..after.len() - shared];
    for (index, (old, new)) in (start..).zip(before.iter().zip(after)) {
        if old != new && edit(&items.get(index)?, old, new).is_none() {
            items.set(index, made(new)?);
        }
    }
    let both = before.len().min(after.len());
    for (index, item) in (start + both..).zip(&after[both..]) {
        items.insert(index, made(item)?);
    }
    for index in (start + both..start + before.len()).rev() {
        items.remove(index);
    }
    Some(())
}

/// The value as a node, written as it would be in a document printed anew: what YAML 1.1 takes for something else is quoted.
fn made(value: &Value) -> Option<YamlNode> {
    let document = Document::from_str(&text::of(&json!({"made": value}), false)).ok()?;
    document.get("made")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str, change: impl FnOnce(&mut Value)) -> Result<String, String> {
        let [document] = documents(text)
            .expect("YAML")
            .try_into()
            .expect("one document");
        let mut after = document.value.clone();
        change(&mut after);
        changed(text, &document.value, &after)
    }

    #[test]
    fn what_is_not_changed_stays_to_the_letter() {
        let text = "# head\nz: 0644   # octal\na: {b: yes, c: 'x'} # flow\nl:\n# between\n  - \"1\"\n\n  # last\nm: |\n  # none\n\n";
        let edited = after(text, |value| {
            value["a"]["off"] = "off".into();
            value["l"] = json!(["1", "on"]);
        });
        let expected = text
            .replace("'x'}", "'x', 'off': 'off'}")
            .replace("\"1\"\n", "\"1\"\n  - 'on'\n");
        assert_eq!(edited, Ok(expected));
    }

    #[test]
    fn what_says_nothing_takes_fields() {
        for (text, expected) in [
            ("m:\n  l: # c\n  n: 1\n", "m:\n  l: # c\n    a: x\n  n: 1\n"),
            ("m:\n  l: null # c\n", "m:\n  l: # c\n    a: x\n"),
            ("m: {l: {}} # c\n", "m: {l: {a: x}} # c\n"),
        ] {
            let edited = after(text, |value| value["m"]["l"] = json!({"a": "x"}));
            assert_eq!(edited.as_deref(), Ok(expected));
        }
    }

    #[test]
    fn an_alias_becomes_a_copy_and_what_others_name_is_left_to_be_printed_anew() {
        let text = "a: &x {b: c} # kept\nd: *x\n";
        let edited = after(text, |value| value["d"]["e"] = "f".into());
        assert_eq!(
            edited.as_deref(),
            Ok("a: &x {b: c} # kept\nd:\n  b: c\n  e: f\n")
        );
        let refused = after(text, |value| value["a"]["e"] = "f".into());
        assert!(refused.is_err(), "{refused:?}");
    }

    #[test]
    fn items_go_where_they_stood() {
        let text = "l: # a\n- b # 1\n# c\n- d # 2\n- e # 3\n";
        let edited = after(text, |value| value["l"] = json!(["b", "e"]));
        assert_eq!(edited.as_deref(), Ok("l: # a\n- b # 1\n# c\n- e # 3\n"));
    }
}
