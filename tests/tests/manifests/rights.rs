//! The rights that the chart gives, in a kept file, so that nobody adds one without a reader seeing it.

use std::{fmt::Write, fs};

use serde_json::Value;
use sidestep_kit::{
    chart::{object, objects},
    needs, parts,
};

use crate::{EVERYTHING, PROVIDED};

/// A rule in a line: `pods: get list watch`.
fn line(rule: &Value) -> String {
    let words = |field: &str, with: &str| {
        let all = rule[field].as_array().expect("a list");
        let all: Vec<&str> = all.iter().map(|it| it.as_str().expect("a word")).collect();
        all.join(with)
    };
    let group = words("apiGroups", ",");
    let dot = if group.is_empty() { "" } else { "." };
    let mut what = format!("{}{dot}{group}", words("resources", ","));
    if rule["resourceNames"].is_array() {
        write!(what, "/{}", words("resourceNames", ",")).expect("a string takes it");
    }
    format!("  {what}: {}\n", words("verbs", " "))
}

fn rights(settings: &[&str]) -> String {
    let mut text = String::new();
    for object in objects(settings) {
        if let Some(rules) = object["rules"].as_array()
            && object["kind"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("Role"))
        {
            let [kind, name] = [&object["kind"], &object["metadata"]["name"]]
                .map(|it| it.as_str().expect("a word").to_owned());
            writeln!(text, "{kind} {name}").expect("a string takes it");
            text.extend(rules.iter().map(line));
        }
    }
    text
}

#[needs(part("helm"))]
fn the_rights_are_those_of_the_kept_file() {
    let mut now = String::new();
    for (title, settings) in [
        ("by default", &[] as &[&str]),
        ("with waiting.deleteSeconds", EVERYTHING),
        ("with certificates.mode=provided", PROVIDED),
        (
            "with labelUnsupportedNodes=false",
            &["labelUnsupportedNodes=false"],
        ),
    ] {
        writeln!(now, "# {title}\n{}", rights(settings)).expect("a string takes it");
    }
    let path = parts::workspace().join("tests/tests/manifests/rights.txt");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &now).expect("a file can be written");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(now, kept, "UPDATE_EXPECTED=1 writes {}", path.display());
}

#[needs(part("helm"))]
fn each_role_is_bound_to_its_own_account_and_no_other() {
    let objects = objects(&[]);
    for (kind, name) in [
        ("ClusterRole", "sidestep-webhook"),
        ("Role", "sidestep-webhook"),
        ("ClusterRole", "sidestep-agent"),
        ("ClusterRole", "sidestep-uninstall"),
        ("ClusterRole", "sidestep-test"),
        ("Role", "sidestep-test"),
    ] {
        object(&objects, kind, name);
        object(&objects, "ServiceAccount", name);
        let binding = object(&objects, &format!("{kind}Binding"), name);
        assert_eq!(binding["roleRef"]["kind"], kind);
        assert_eq!(binding["roleRef"]["name"], name);
        let subjects = binding["subjects"].as_array().expect("subjects");
        assert_eq!(subjects.len(), 1);
        assert_eq!(subjects[0]["name"], name);
        assert_eq!(subjects[0]["namespace"], "sidestep-system");
    }
    let bindings = objects.iter().filter(|it| it["roleRef"].is_object());
    assert_eq!(bindings.count(), 8, "with the two in `default`");
}
