//! Values as YAML or JSON, and their differences.

use serde_json::Value;
use similar::TextDiff;

use super::yaml;

/// YAML or JSON, with a line end at the end.
pub(super) fn of(value: &Value, as_json: bool) -> String {
    if as_json {
        format!("{value:#}\n")
    } else {
        yaml::document(value)
    }
}

/// A unified diff, or nothing.
pub(super) fn diff(name: &str, before: &str, after: &str) -> String {
    TextDiff::from_lines(before, after)
        .unified_diff()
        .header(&format!("a/{name}"), &format!("b/{name}"))
        .to_string()
}
