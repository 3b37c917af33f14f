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

/// A unified diff for `patch -p1`, or nothing.
pub(super) fn diff(name: &str, before: &str, after: &str) -> String {
    // Only a newline ends a line for `patch`.
    let lines = |text| str::split_inclusive(text, '\n').collect::<Vec<_>>();
    let name = name.trim_start_matches('/');
    // Without a tab behind it, a name ends at its first blank.
    let end = if name.contains(' ') { "\t" } else { "" };
    TextDiff::configure()
        .newline_terminated(true)
        .diff_slices(&lines(before), &lines(after))
        .unified_diff()
        .header(&format!("a/{name}{end}"), &format!("b/{name}{end}"))
        .to_string()
}
