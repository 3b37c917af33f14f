//! The Helm chart, rendered.

use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use crate::parts;

/// The namespace that it is rendered for.
pub const NAMESPACE: &str = "sidestep-system";

/// Settings as Helm's arguments: `a.b=c`, or with the option before it, `--set-json=a.b=[]`.
pub fn arguments(settings: &[&str]) -> impl Iterator<Item = String> {
    settings.iter().map(|setting| {
        if setting.starts_with("--") {
            (*setting).to_owned()
        } else {
            format!("--set={setting}")
        }
    })
}

/// What `helm template` prints with these settings; or, where it fails, what it complains of.
pub fn template(settings: &[&str]) -> Result<String, String> {
    let mut helm = Command::new(parts::program("helm"));
    helm.args(["template", "sidestep", "--namespace", NAMESPACE])
        .arg(parts::workspace().join("manifests/chart"))
        .args(arguments(settings));
    parts::finish(&mut helm)
}

/// The objects that the chart makes with these settings.
#[track_caller]
pub fn objects(settings: &[&str]) -> Vec<Value> {
    let text = template(settings).unwrap_or_else(|error| panic!("{settings:?}: {error}"));
    documents(&text)
}

/// The one object of this kind and name.
#[track_caller]
pub fn object<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = objects
        .iter()
        .find(|it| it["kind"] == kind && it["metadata"]["name"] == name);
    found.unwrap_or_else(|| panic!("there is no {kind} {name}"))
}

/// The documents of a text in YAML, without empty ones.
pub fn documents(text: &str) -> Vec<Value> {
    yaml_serde::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).expect("a YAML document"))
        .filter(|document| !document.is_null())
        .collect()
}
