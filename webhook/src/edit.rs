//! Changes to a JSON document, written down as RFC 6902 operations. What is already as wanted gives no operation.
//!
//! `json_patch::diff` would make operations of two documents, but compares lists index by index: where one of two
//! containers goes, it rewrites the other, and what it writes follows the alphabet rather than the decision.

use std::slice;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation};
use serde_json::{Map, Value};

pub(crate) struct Edit {
    document: Value,
    operations: Vec<PatchOperation>,
}

impl Edit {
    pub(crate) fn new(document: &Value) -> Self {
        Self {
            document: document.clone(),
            operations: Vec::new(),
        }
    }

    pub(crate) fn finish(self) -> Patch {
        Patch(self.operations)
    }

    /// What stands at `path` now. JSON's null is nothing.
    pub(crate) fn get(&self, path: &[&str]) -> Option<&Value> {
        let found = pointer(path).resolve(&self.document).ok();
        found.filter(|value| !value.is_null())
    }

    /// Makes `value` stand at `path`, with the objects on the way there. An index one past the end of a list appends.
    pub(crate) fn set(&mut self, path: &[&str], value: Value) {
        if self.get(path) == Some(&value) {
            return;
        }
        let missing = (1..path.len()).find(|depth| self.get(&path[..*depth]).is_none());
        let end = missing.unwrap_or(path.len());
        let value = path[end..].iter().rev().fold(value, |inner, key| {
            Value::Object(Map::from_iter([((*key).to_owned(), inner)]))
        });
        let path = pointer(&path[..end]);
        self.apply(if path.resolve(&self.document).is_ok() {
            PatchOperation::Replace(ReplaceOperation { path, value })
        } else {
            PatchOperation::Add(AddOperation { path, value })
        });
    }

    /// Makes nothing stand at `path`.
    pub(crate) fn remove(&mut self, path: &[&str]) {
        let path = pointer(path);
        self.apply(PatchOperation::Remove(RemoveOperation { path }));
    }

    /// Notes an operation that changes the document, and none that does not fit.
    fn apply(&mut self, operation: PatchOperation) {
        if json_patch::patch(&mut self.document, slice::from_ref(&operation)).is_ok() {
            self.operations.push(operation);
        }
    }

    /// Makes of what a type knows as `before` what it knows as `after`; fields that the type does not know stay.
    pub(crate) fn merge(&mut self, path: &[&str], before: Option<&Value>, after: &Value) {
        let (Some(Value::Object(before)), Value::Object(after)) = (before, after) else {
            return self.set(path, after.clone());
        };
        for key in before.keys().filter(|key| !after.contains_key(*key)) {
            self.remove(&[path, &[key]].concat());
        }
        for (key, value) in after {
            self.merge(&[path, &[key]].concat(), before.get(key), value);
        }
    }
}

fn pointer(path: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(path.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn operations(edit: Edit) -> Value {
        serde_json::to_value(edit.finish()).expect("a patch is JSON")
    }

    #[test]
    fn slashes_and_tildes_in_keys_are_escaped() {
        let mut edit = Edit::new(&json!({"a/b": {"c~d": 1}}));
        edit.set(&["a/b", "c~d"], json!(2));
        assert_eq!(
            operations(edit),
            json!([{"op": "replace", "path": "/a~1b/c~0d", "value": 2}])
        );
    }

    #[test]
    fn objects_on_the_way_are_made_even_in_place_of_null() {
        let mut edit = Edit::new(&json!({"metadata": {"labels": null}}));
        edit.set(&["metadata", "labels", "x"], json!("1"));
        edit.set(&["metadata", "annotations", "y"], json!("2"));
        assert_eq!(
            operations(edit),
            json!([
                {"op": "replace", "path": "/metadata/labels", "value": {"x": "1"}},
                {"op": "add", "path": "/metadata/annotations", "value": {"y": "2"}},
            ])
        );
    }

    #[test]
    fn what_is_as_wanted_gives_no_operation() {
        let mut edit = Edit::new(&json!({"a": [1], "b": {"c": 1}}));
        edit.set(&["a", "0"], json!(1));
        edit.remove(&["b", "d"]);
        edit.remove(&["x", "y"]);
        edit.merge(&["b"], Some(&json!({"c": 1})), &json!({"c": 1}));
        assert_eq!(operations(edit), json!([]));
    }

    #[test]
    fn merging_keeps_fields_that_the_type_does_not_know() {
        let mut edit = Edit::new(&json!({"s": {"known": 1, "gone": 2, "unknown": 3}}));
        edit.merge(
            &["s"],
            Some(&json!({"known": 1, "gone": 2})),
            &json!({"known": 4, "new": 5}),
        );
        assert_eq!(
            edit.document,
            json!({"s": {"known": 4, "new": 5, "unknown": 3}})
        );
    }
}
