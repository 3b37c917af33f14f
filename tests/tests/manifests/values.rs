//! Values can be set together; all of them are documented, and in the schema.

use std::{collections::BTreeMap, fs};

use serde_json::Value;
use sidestep_kit::{
    chart::{documents, template},
    needs, parts,
};

use crate::SETTINGS;

#[needs(part("helm"))]
fn every_set_of_settings_can_be_rendered() {
    for settings in SETTINGS {
        let text = template(settings).unwrap_or_else(|error| panic!("{settings:?}: {error}"));
        let count = documents(&text).len();
        assert!(count >= 16, "{settings:?}: only {count} objects");
        let blank = text
            .lines()
            .any(|line| !line.is_empty() && line.trim().is_empty());
        assert!(!blank, "{settings:?}: a line of nothing but spaces");
    }
}

/// Every value that has no values below it, by its dotted name. Maps and lists of the user's own count as one.
fn leaves(prefix: &str, value: &Value, all: &mut BTreeMap<String, Value>) {
    let own = ["nodeSelector", "resources", "affinity"];
    match value.as_object() {
        Some(fields) if !fields.is_empty() && !own.iter().any(|name| prefix.ends_with(name)) => {
            for (name, value) in fields {
                let dot = if prefix.is_empty() { "" } else { "." };
                leaves(&format!("{prefix}{dot}{name}"), value, all);
            }
        }
        _ => {
            all.insert(prefix.to_owned(), value.clone());
        }
    }
}

fn read(path: &str) -> String {
    let path = parts::workspace().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_readmes_table_has_every_value_with_its_default_and_no_other() {
    let values = documents(&read("manifests/chart/values.yaml"));
    let mut expected = BTreeMap::new();
    leaves("", &values[0], &mut expected);
    let readme = read("manifests/README.md");
    let rows = readme
        .lines()
        .skip_while(|line| !line.starts_with("| value |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let table: BTreeMap<String, String> = rows
        .map(|row| {
            let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
            let (_, name, default) = (cells.next(), cells.next(), cells.next());
            let cell = |cell: Option<&str>| cell.expect("a cell").to_owned();
            (cell(name), cell(default))
        })
        .collect();
    let names: Vec<&String> = table.keys().collect();
    assert_eq!(names, expected.keys().collect::<Vec<_>>());
    for (name, value) in &expected {
        // What takes more than a word is described.
        if let Some(word) = value
            .as_str()
            .map(str::to_owned)
            .or_else(|| (value.is_number() || value.is_boolean()).then(|| value.to_string()))
        {
            assert_eq!(table[name], word, "the default of {name}");
        }
    }
}

#[test]
fn the_schema_has_every_value_and_no_other() {
    let values = documents(&read("manifests/chart/values.yaml"));
    let schema: Value =
        serde_json::from_str(&read("manifests/chart/values.schema.json")).expect("JSON");
    let mut expected = BTreeMap::new();
    leaves("", &values[0], &mut expected);
    let mut known = Vec::new();
    properties("", &schema, &mut known);
    known.retain(|name| name != "global");
    known.sort();
    assert_eq!(known, expected.into_keys().collect::<Vec<_>>());
}

fn properties(prefix: &str, schema: &Value, all: &mut Vec<String>) {
    // Kubernetes' own fields.
    let foreign = prefix.ends_with("seLinuxOptions");
    match schema["properties"].as_object() {
        Some(fields) if !foreign => {
            for (name, schema) in fields {
                let dot = if prefix.is_empty() { "" } else { "." };
                properties(&format!("{prefix}{dot}{name}"), schema, all);
            }
        }
        _ => all.push(prefix.to_owned()),
    }
}
