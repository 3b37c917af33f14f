//! Where fuzzing starts from: real injector output, before and after `sidestep mutate`.

use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use sidestep_contract::documents::documents;
use sidestep_contract::istio::flags::{ENV_ONLY, TABLE};
use sidestep_contract::istio_init;
use sidestep_webhook::admission::review_of;
use sidestep_webhook::offline::{Document, mutate};
use sidestep_webhook::settings::Settings;

use crate::policy;

/// An input for each of the checks, named after target and fixture.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The check it is for.
    pub target: &'static str,
    /// The file's name.
    pub name: String,
    /// The input.
    pub input: Vec<u8>,
}

/// Seeds of all fixtures.
pub fn all() -> Vec<Seed> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    let entries = fs::read_dir(folder).expect("the fixtures are there");
    let mut seeds = Vec::new();
    for entry in entries {
        let entry = entry.expect("a folder entry");
        let name = entry.file_name().into_string().expect("a plain name");
        for file in ["pod.yaml", "injected.yaml"] {
            if let Ok(text) = fs::read_to_string(entry.path().join(file)) {
                of_file(&name, &text, &mut seeds);
            }
        }
    }
    seeds
}

fn of_file(name: &str, text: &str, seeds: &mut Vec<Seed>) {
    let made = mutate(text, "default", &Settings::default()).expect("fixtures are sound");
    let mutated: Vec<_> = made.iter().map(Document::mutated).collect();
    for (kind, text) in [("fresh", text), ("gated", &mutated.join("\n---\n"))] {
        let name = format!("{name}-{kind}");
        let mut add = |target, input: String| {
            let (name, input) = (name.clone(), input.into_bytes());
            seeds.push(Seed {
                target,
                name,
                input,
            });
        };
        add("file", text.to_owned());
        for document in documents(text).expect("what was read before") {
            let object = document.value;
            if object["kind"] != "Pod" {
                continue;
            }
            add("review", review_of("seed", &object).to_string());
            let pod = Pod::deserialize(&object).expect("a pod");
            if let Ok(init) = istio_init(&pod) {
                add("policy", policy::input(init.container));
            }
        }
    }
}

/// Words that libFuzzer may put into inputs of the policy check, in the form of its dictionaries.
pub fn dictionary() -> String {
    let mut words: Vec<String> = [
        "*",
        ",",
        ":",
        "/",
        "=",
        "--",
        "REDIRECT",
        "TPROXY",
        "NONE",
        "true",
        "false",
        "0",
        "1337",
        "65535",
        "65536",
        "4294967295",
        "127.0.0.0/8",
        "::1/128",
        "10.0.0.0/8",
        "1h5m",
        "$(X)",
        "http",
        "\\x0a",
        "\\x0a$",
    ]
    .map(str::to_owned)
    .into();
    for spec in TABLE {
        words.push(format!("\\x0a--{}=", spec.long));
        words.extend(spec.short.map(|short| format!("\\x0a-{short}")));
        words.extend(spec.env.iter().map(|name| format!("\\x0a${name}=")));
    }
    words.extend(ENV_ONLY.map(|name| format!("\\x0a${name}=")));
    let lines = words.iter().map(|word| format!("\"{word}\"\n"));
    lines.collect()
}
