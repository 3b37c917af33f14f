//! What becomes of the same pods as the injection templates of earlier versions of Istio leave them.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{by_default, fixture, folder, istio_init, mutated, read, typed};
use serde_json::{Value, json};
use sidestep_contract::{Policy, Redirector, keys};
use sidestep_webhook::decide::Decision;

/// The versions in `istio/versions`, and the fixtures that each has.
const VERSIONS: &[(&str, &[&str])] = &[
    ("1.24", &["client", "cni", "server"]),
    ("1.26", &["client", "cni", "server"]),
    ("1.27", &["client", "cni", "native-nftables", "server"]),
    ("1.29", &["client", "cni", "native-nftables", "server"]),
    ("1.30", &["client", "cni", "native-nftables", "server"]),
];

/// Every pod of every version: version, name of the fixture, pod.
fn pods() -> Vec<(&'static str, &'static str, Value)> {
    let all = VERSIONS
        .iter()
        .flat_map(|&(version, names)| names.iter().map(move |&name| (version, name)));
    all.map(|(version, name)| {
        let file = folder().join(format!("versions/{version}/{name}.yaml"));
        (version, name, read(&file))
    })
    .collect()
}

/// Whether an init container redirects its pod, or validates that istio-cni did.
fn is_redirecting(init: &Value) -> bool {
    [keys::ISTIO_INIT, keys::ISTIO_VALIDATION]
        .map(Value::from)
        .contains(&init["name"])
}

fn redirecting(pod: &Value) -> &Value {
    let inits = pod["spec"]["initContainers"].as_array().expect("a list");
    let found = inits.iter().find(|init| is_redirecting(init));
    found.expect("one of Istio's")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
    let mut names: Vec<_> = names.map(|name| name.expect("a plain name")).collect();
    names.sort();
    names
}

#[test]
fn the_fixtures_are_those_of_the_pinned_versions() {
    let pinned = fs::read_to_string(folder().join("istio/versions")).expect("the versions");
    let pinned = pinned.lines().filter(|line| !line.starts_with('#'));
    let pinned: BTreeMap<_, _> = pinned
        .map(|line| {
            let mut words = line.split(' ');
            (
                words.next().expect("a version"),
                words.next().expect("its name"),
            )
        })
        .collect();
    let versions: Vec<_> = VERSIONS.iter().map(|(version, _)| *version).collect();
    assert_eq!(pinned.keys().copied().collect::<Vec<_>>(), versions);
    assert_eq!(names(&folder().join("versions")), versions);
    for (version, fixtures) in VERSIONS {
        let files: Vec<_> = fixtures.iter().map(|name| format!("{name}.yaml")).collect();
        assert_eq!(names(&folder().join("versions").join(version)), files);
    }
    for (version, name, pod) in pods() {
        let image = format!("istio/proxyv2:{}", pinned[version]);
        assert_eq!(redirecting(&pod)["image"], image, "{version} {name}");
    }
}

#[test]
fn every_version_says_what_the_newest_says() {
    for (version, name, pod) in pods() {
        let what = format!("Istio {version}, {name}");
        let newest = fixture(name);
        for field in ["name", "args", "env", "command", "securityContext"] {
            let of = |pod| redirecting(pod).get(field).cloned();
            assert_eq!(of(&pod), of(&newest), "{what}: {field}");
        }
        let init = typed(&pod);
        let init = sidestep_contract::istio_init(&init).expect("one");
        assert!(!init.is_gate && !init.is_changed_gate, "{what}");
        let is_cni = init.redirector == Redirector::IstioCni;
        assert_eq!(is_cni, name == "cni", "{what}");
        let policy = init.policy.unwrap_or_else(|why| panic!("{what}: {why}"));
        assert_eq!(policy.native_nftables, name == "native-nftables", "{what}");
        assert_eq!(Policy::from_pod(&typed(&newest)), Ok(policy), "{what}");
    }
}

#[test]
fn the_sidecar_is_native_where_it_is_asked_for() {
    for (version, name, pod) in pods() {
        let sidecar = |list: &Value| {
            let all = list.as_array().into_iter().flatten();
            all.filter(|one| one["name"] == "istio-proxy")
                .cloned()
                .collect::<Vec<_>>()
        };
        let (inits, containers) = (&pod["spec"]["initContainers"], &pod["spec"]["containers"]);
        let (native, ordinary) = (sidecar(inits), sidecar(containers));
        let is_native = name != "server";
        assert_eq!(
            (native.len(), ordinary.len()),
            if is_native { (1, 0) } else { (0, 1) },
            "{version} {name}"
        );
        if is_native {
            assert_eq!(native[0]["restartPolicy"], "Always", "{version} {name}");
        }
    }
}

#[test]
fn the_pods_of_every_version_are_gated() {
    for (version, name, pod) in pods() {
        let what = format!("Istio {version}, {name}");
        let verdict = by_default(&pod);
        let Decision::Accelerate(made) = &verdict.decision else {
            panic!("{what}: {}", verdict.decision.word());
        };
        assert_eq!(verdict.warnings, Vec::<String>::new(), "{what}");
        let after = mutated(&pod);
        let typed_after = typed(&after);
        let gate = sidestep_contract::istio_init(&typed_after).expect("one");
        assert!(gate.is_gate, "{what}");
        assert_eq!(gate.policy.as_ref(), Ok(&made.policy), "{what}");
        assert_eq!(
            after["metadata"]["labels"][keys::ACCELERATED],
            "true",
            "{what}"
        );
        // The gate is the newest version's, but for the image.
        let mut mine = after["spec"]["initContainers"][istio_init(&after)].clone();
        let newest = mutated(&fixture(name));
        mine["image"] = newest["spec"]["initContainers"][0]["image"].clone();
        assert_eq!(
            mine,
            newest["spec"]["initContainers"][istio_init(&newest)],
            "{what}"
        );
        // Nothing else but the metadata changes, and twice is once.
        let rest = |pod: &Value| {
            let mut pod = pod.clone();
            pod["metadata"] = json!(null);
            let inits = pod["spec"]["initContainers"]
                .as_array_mut()
                .expect("a list");
            inits.retain(|init| !is_redirecting(init));
            pod["spec"]["affinity"] = json!(null);
            pod
        };
        assert_eq!(rest(&after), rest(&pod), "{what}");
        assert_eq!(mutated(&after), after, "{what}");
    }
}
