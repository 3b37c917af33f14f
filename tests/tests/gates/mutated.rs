//! The fixtures, as `sidestep mutate` leaves them.

use std::{collections::BTreeSet, fs, path::PathBuf, process::Command};

use k8s_openapi::api::core::v1::{Container, Pod};
use serde::Deserialize;
use serde_json::{Value, json};
use sidestep_contract::{documents, istio_init};
use sidestep_kit::{binary, net::run, parts};

/// A pod and the fixture it is from.
#[derive(Debug, Clone)]
pub(crate) struct GatedPod {
    pub(crate) fixture: String,
    pub(crate) value: Value,
}

impl GatedPod {
    pub(crate) fn typed(&self) -> Pod {
        Pod::deserialize(&self.value).expect("a pod")
    }

    pub(crate) fn gate(&self) -> Container {
        let pod = self.typed();
        let init = istio_init(&pod).expect("an istio-init");
        init.container.clone()
    }
}

/// One pod for every different gate. What is no part of how the gate runs, nor of what the agent does, is not compared.
pub(crate) fn all(options: &[&str]) -> Vec<GatedPod> {
    let mut seen = BTreeSet::new();
    let mut pods = everything(options);
    pods.retain(|pod| {
        let gate = pod.gate();
        let ids = gate.security_context.map(|context| context.run_as_user);
        seen.insert(json!([gate.args, gate.env, ids]).to_string())
    });
    pods
}

/// Every accelerated pod of every fixture.
pub(crate) fn everything(options: &[&str]) -> Vec<GatedPod> {
    names().iter().flat_map(|name| of(name, options)).collect()
}

/// The accelerated pods of a fixture.
pub(crate) fn of(fixture: &str, options: &[&str]) -> Vec<GatedPod> {
    let mut pods = pods_of(fixture, &mutated(fixture, options));
    pods.retain(|pod| istio_init(&pod.typed()).is_ok_and(|init| init.is_gate));
    pods
}

/// The names of all fixtures.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(parts::fixtures())
        .expect("the fixtures are there")
        .map(|entry| entry.expect("a folder entry"))
        .filter(|entry| entry.path().join("app.yaml").exists())
        .map(|entry| entry.file_name().into_string().expect("a plain name"))
        .collect();
    names.sort();
    names
}

/// The objects of a fixture in which pods are, through the command line.
pub(crate) fn mutated(fixture: &str, options: &[&str]) -> Vec<Value> {
    let mut command = Command::new(binary("sidestep"));
    command.args(["mutate", "--filename"]).arg(file(fixture));
    let output = run(command.args(options));
    objects(&String::from_utf8(output.stdout).expect("a text"))
}

/// The one pod of a fixture, as Istio's injector left it.
pub(crate) fn injected(fixture: &str) -> GatedPod {
    let mut pods = pods_of(fixture, &before(fixture));
    assert_eq!(pods.len(), 1, "{fixture}");
    pods.remove(0)
}

/// The objects of a fixture in which pods are, as Istio's injector left them.
pub(crate) fn before(fixture: &str) -> Vec<Value> {
    objects(&fs::read_to_string(file(fixture)).expect("a readable file"))
}

fn file(fixture: &str) -> PathBuf {
    let files =
        ["pod.yaml", "injected.yaml"].map(|file| parts::fixtures().join(fixture).join(file));
    let found = files.into_iter().find(|file| file.exists());
    found.unwrap_or_else(|| panic!("{fixture}: run make.sh"))
}

fn objects(text: &str) -> Vec<Value> {
    let documents = documents::documents(text).expect("documents");
    let documents = documents.into_iter().map(|document| document.value);
    documents.filter(|it| !pods_in(it).is_empty()).collect()
}

fn pods_of(fixture: &str, objects: &[Value]) -> Vec<GatedPod> {
    let pods = objects.iter().flat_map(pods_in);
    pods.map(|value| GatedPod {
        fixture: fixture.to_owned(),
        value,
    })
    .collect()
}

/// The pods and the pod templates in an object.
pub(crate) fn pods_in(object: &Value) -> Vec<Value> {
    let objects = documents::objects(object);
    let pods = objects.iter().filter_map(documents::Object::pod);
    pods.map(|(_, pod)| pod.clone()).collect()
}
