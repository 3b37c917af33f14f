//! Pods to decide about: real injector output, and what may be done to it.

use std::fs;
use std::path::{Path, PathBuf};

use json_patch::Patch;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde_json::Value;
use sidestep_contract::documents::objects;
use sidestep_webhook::cluster::{Cluster, Namespace};
use sidestep_webhook::decide::{Verdict, decide};
use sidestep_webhook::patch::patch;
use sidestep_webhook::settings::Settings;

/// The folder of this package.
pub(crate) fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder of the fixtures.
pub(crate) fn folder() -> PathBuf {
    package().join("../tests/fixtures")
}

/// The fixtures that hold a file of this name, by the names of their folders.
pub(crate) fn with_file(file: &str) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder()).expect("the fixtures are there");
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.expect("a folder entry");
            let file = entry.path().join(file);
            let name = entry.file_name().into_string().expect("a plain name");
            file.exists().then_some((name, file))
        })
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

/// The fixtures that are one pod.
pub(crate) fn fixtures() -> Vec<(String, PathBuf)> {
    with_file("pod.yaml")
}

/// Every pod in the fixtures, by the fixture's name: those that stand alone, and those in templates.
pub(crate) fn pods() -> Vec<(String, Value)> {
    let alone = fixtures().into_iter();
    let alone = alone.map(|(name, file)| (name, read(&file)));
    let held = with_file("injected.yaml").into_iter();
    let held = held.flat_map(|(name, file)| {
        let documents = documents(&file);
        let objects = documents.iter().flat_map(objects);
        let pods = objects.filter_map(|object| object.pod().map(|(_, pod)| pod.clone()));
        pods.map(move |pod| (name.clone(), pod)).collect::<Vec<_>>()
    });
    alone.chain(held).collect()
}

/// Those that have an `istio-init`.
pub(crate) fn injected() -> Vec<(String, Value)> {
    let mut pods = pods();
    pods.retain(|(_, pod)| place(pod).is_some());
    pods
}

/// The documents of a file.
pub(crate) fn documents(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("a readable file");
    let documents = sidestep_contract::documents::documents(&text);
    let documents = documents.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    documents
        .into_iter()
        .map(|document| document.value)
        .collect()
}

/// A fixture's pod as the API server would send it.
pub(crate) fn fixture(name: &str) -> Value {
    read(&folder().join(name).join("pod.yaml"))
}

/// The one document of a file.
pub(crate) fn read(file: &Path) -> Value {
    let [document] = documents(file).try_into().expect("one document");
    document
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

/// What is decided with these settings, in a word, and the pod after it.
pub(crate) fn with_settings(pod: &Value, settings: &Settings) -> (&'static str, Value) {
    let namespace = Namespace::default();
    let verdict = decide(&typed(pod), Some(&namespace), &Cluster::assumed(), settings);
    let after = applied(pod, &patch(pod, &verdict));
    (verdict.decision.word(), after)
}

/// The place of the first `istio-init` among the init containers.
pub(crate) fn place(pod: &Value) -> Option<usize> {
    let inits = pod["spec"]["initContainers"].as_array()?;
    inits.iter().position(|init| init["name"] == "istio-init")
}

/// The same where there is exactly one.
pub(crate) fn istio_init(pod: &Value) -> usize {
    let inits = pod["spec"]["initContainers"].as_array().expect("a list");
    let named = inits.iter().filter(|init| init["name"] == "istio-init");
    assert_eq!(named.count(), 1, "one istio-init");
    place(pod).expect("it is there")
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
