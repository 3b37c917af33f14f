//! Pods to decide about: real injector output, and what may be done to it.

use std::fs;
use std::path::{Path, PathBuf};

use json_patch::Patch;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::Value;
use sidestep_webhook::cluster::{Cluster, Namespace};
use sidestep_webhook::decide::{Verdict, decide};
use sidestep_webhook::patch::patch;
use sidestep_webhook::settings::Settings;

/// The folder of this package.
pub(crate) fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of one name in the fixtures' folders, by the folders' names.
pub(crate) fn fixtures() -> Vec<(String, PathBuf)> {
    let folder = package().join("../tests/fixtures");
    let entries = fs::read_dir(folder).expect("the fixtures are there");
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.expect("a folder entry");
            let file = entry.path().join("pod.yaml");
            let name = entry.file_name().into_string().expect("a plain name");
            file.exists().then_some((name, file))
        })
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

/// A fixture's pod as the API server would send it.
pub(crate) fn fixture(name: &str) -> Value {
    read(&package().join(format!("../tests/fixtures/{name}/pod.yaml")))
}

pub(crate) fn read(file: &Path) -> Value {
    let text = fs::read_to_string(file).expect("a readable file");
    let mut documents = yaml_serde::Deserializer::from_str(&text);
    let first = documents.next().expect("a document");
    Value::deserialize(first).expect("JSON as YAML")
}

pub(crate) fn typed(pod: &Value) -> Pod {
    Pod::deserialize(pod).expect("a pod")
}

/// What is decided where nobody says anything and every node runs an agent.
pub(crate) fn by_default(pod: &Value) -> Verdict {
    decide(
        &typed(pod),
        Some(&Namespace::default()),
        &Cluster::assumed(),
        &Settings::default(),
    )
}

pub(crate) fn applied(pod: &Value, patch: &Patch) -> Value {
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, patch).expect("a patch made for this pod");
    pod
}

/// The pod after the webhook, with default settings.
pub(crate) fn mutated(pod: &Value) -> Value {
    applied(pod, &patch(pod, &by_default(pod)))
}

/// The place of the one `istio-init` among the init containers.
pub(crate) fn istio_init(pod: &Value) -> usize {
    let inits = pod["spec"]["initContainers"].as_array().expect("a list");
    let mut places = inits
        .iter()
        .enumerate()
        .filter(|(_, container)| container["name"] == "istio-init");
    let (place, _) = places.next().expect("an istio-init");
    assert!(places.next().is_none(), "one istio-init only");
    place
}

/// A fixture with further arguments for its `istio-init`.
pub(crate) fn with_args(name: &str, args: &[&str]) -> Value {
    let mut pod = fixture(name);
    let place = istio_init(&pod);
    let list = pod["spec"]["initContainers"][place]["args"].as_array_mut();
    list.expect("arguments")
        .extend(args.iter().map(|arg| Value::from(*arg)));
    pod
}

/// A fixture whose metadata has one text more.
pub(crate) fn with_metadata(name: &str, field: &str, key: &str, value: &str) -> Value {
    let mut pod = fixture(name);
    pod["metadata"][field][key] = value.into();
    pod
}
