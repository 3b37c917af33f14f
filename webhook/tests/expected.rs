//! What becomes of real injector output. The expected patches are kept beside, to be read; `UPDATE_EXPECTED=1` writes them,
//! and the table of fixtures in their README.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use common::{by_default, fixtures, folder, mutated, package, pods, read, typed, with_file};
use serde_json::{Value, json};
use sidestep_contract::Policy;
use sidestep_webhook::decide::Decision;
use sidestep_webhook::offline::{self, Outcome};
use sidestep_webhook::patch::patch;
use sidestep_webhook::settings::Settings;

/// The decision about a pod and its patch; or about all that a file holds.
fn text(name: &str, file: &Path) -> (Vec<&'static str>, String) {
    if file.ends_with("pod.yaml") {
        let pod = read(file);
        let verdict = by_default(&pod);
        let word = verdict.decision.word();
        let mut text = format!("# {name}: {word}\n");
        add_warnings(&mut text, &verdict.warnings);
        let patch = yaml_serde::to_string(&patch(&pod, &verdict)).expect("a patch is YAML");
        return (vec![word], text + &patch);
    }
    let text = fs::read_to_string(file).expect("a readable file");
    let documents = offline::mutate(&text, "default", &Settings::default()).expect("objects");
    let words = documents.iter().flat_map(|document| &document.outcomes);
    let words = words.map(|outcome| outcome.decision.word()).collect();
    let texts = documents.iter().map(|document| {
        let mut text = String::new();
        for outcome in &document.outcomes {
            let Outcome {
                what,
                decision,
                warnings,
            } = outcome;
            writeln!(text, "# {what}: {}", decision.word()).expect("a text takes it");
            add_warnings(&mut text, warnings);
        }
        text + &document.patch_text()
    });
    (words, texts.collect::<Vec<_>>().join("---\n"))
}

fn add_warnings(text: &mut String, warnings: &[String]) {
    for warning in warnings {
        writeln!(text, "# warning: {warning}").expect("a text takes it");
    }
}

fn all() -> Vec<(String, PathBuf)> {
    let mut all = fixtures();
    all.extend(with_file("injected.yaml"));
    all.sort();
    all
}

fn is_update() -> bool {
    env::var_os("UPDATE_EXPECTED").is_some()
}

#[test]
fn every_fixture_gets_its_expected_patch() {
    let folder = package().join("tests/expected");
    let mut wrong = Vec::new();
    let mut files = BTreeSet::new();
    for (name, file) in all() {
        let (_, text) = text(&name, &file);
        let file = format!("{name}.patch.yaml");
        let path = folder.join(&file);
        if is_update() {
            fs::write(&path, &text).expect("the folder can be written");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if text != expected {
            wrong.push(format!("{name}: expected\n{expected}but made\n{text}"));
        }
        files.insert(file);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let there = fs::read_dir(folder).expect("the folder is there");
    let there = there.map(|entry| entry.expect("a file").file_name());
    let there: BTreeSet<_> = there.filter_map(|name| name.into_string().ok()).collect();
    assert_eq!(there, files, "one patch a fixture");
}

#[test]
fn the_readme_tells_of_every_fixture_what_it_is_for_and_what_is_decided() {
    let apps = with_file("app.yaml");
    let names = |all: &[(String, _)]| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&apps), names(&all()), "run make.sh");
    assert!(apps.len() >= 40, "only {} fixtures", apps.len());
    let mut table = "| fixture | what is decided | what is special |\n|---|---|---|\n".to_owned();
    for ((name, file), (_, app)) in all().iter().zip(&apps) {
        let (words, _) = text(name, file);
        let app = fs::read_to_string(app).expect("a readable file");
        let comment = app.lines().map_while(|line| line.strip_prefix("# "));
        let comment = comment.collect::<Vec<_>>().join(" ");
        assert!(comment.len() > 5, "{name}: app.yaml says nothing of itself");
        let words = words.join(", ");
        writeln!(table, "| {name} | {words} | {comment} |").expect("a text takes it");
    }
    let readme = folder().join("README.md");
    let text = fs::read_to_string(&readme).expect("the README");
    let start = text.find("| fixture |").expect("a table");
    if is_update() {
        fs::write(&readme, format!("{}{table}", &text[..start])).expect("it can be written");
    } else {
        let hint = "the table in tests/fixtures/README.md is old: UPDATE_EXPECTED=1 writes it";
        assert_eq!(&text[start..], table, "{hint}");
    }
}

#[test]
fn twice_is_once() {
    for (name, pod) in pods() {
        let once = mutated(&pod);
        let verdict = by_default(&once);
        assert_eq!(patch(&once, &verdict).0, vec![], "{name}");
        assert_eq!(verdict.decision.word(), by_default(&pod).decision.word());
    }
}

#[test]
fn a_gated_pod_has_the_policy_it_had_but_for_the_port_of_its_own_probe() {
    let (mut accelerated, mut other_port) = (0, Vec::new());
    for (name, before) in pods() {
        let policy = Policy::from_pod(&typed(&before));
        let after = Policy::from_pod(&typed(&mutated(&before)));
        let Decision::Accelerate(made) = by_default(&before).decision else {
            assert_eq!(after, policy, "{name}");
            continue;
        };
        accelerated += 1;
        assert_eq!(after.as_ref(), Ok(&made.policy), "{name}");
        let mut policy = policy.expect("an accelerated pod has a policy");
        if policy.probe_port != made.policy.probe_port {
            policy.probe_port = made.policy.probe_port;
            other_port.push(name.clone());
        }
        assert_eq!(after, Ok(policy), "{name}");
    }
    assert!(accelerated >= 40, "only {accelerated} are accelerated");
    assert_eq!(other_port, ["exclude-probe-port"]);
}

#[test]
fn nothing_that_a_gated_pod_says_of_itself_widens_its_policy() {
    let words = [
        "sidestep.dev/policy",
        "sidestep.dev/shortcut",
        "sidestep.dev/shortcut-into",
        "sidestep.dev/netns",
        "sidestep.dev/anything",
        "sidecar.istio.io/interceptionMode",
        "traffic.sidecar.istio.io/excludeInboundPorts",
        "traffic.sidecar.istio.io/excludeOutboundIPRanges",
        "traffic.sidecar.istio.io/excludeOutboundPorts",
        "traffic.sidecar.istio.io/includeOutboundIPRanges",
    ];
    for (name, pod) in pods() {
        let mut gated = mutated(&pod);
        let policy = Policy::from_pod(&typed(&gated));
        for (key, value) in words.into_iter().zip(
            ["1-65535", "0.0.0.0/0", "node", "", "*"]
                .into_iter()
                .cycle(),
        ) {
            for field in ["labels", "annotations"] {
                gated["metadata"][field][key] = value.into();
            }
        }
        assert_eq!(Policy::from_pod(&typed(&gated)), policy, "{name}");
    }
}

#[test]
fn what_istio_makes_of_a_gated_pod_is_gated_as_the_first_time() {
    let fresh = read(&folder().join("client/pod.yaml"));
    let gated = mutated(&fresh);
    let app = read(&folder().join("reinjected/app.yaml"));
    assert_eq!(app, gated, "reinjected/app.yaml is the client's pod, gated");
    let again = read(&folder().join("reinjected/pod.yaml"));
    assert_ne!(again, gated, "the injector undid the gate");
    let mut after = mutated(&again);
    // The injector merged the two, so that what it made has the gate's seccomp profile.
    let variable = |pod: &Value| pod["spec"]["initContainers"][0]["env"][0].clone();
    let kept: Value =
        serde_json::from_str(variable(&after)["value"].as_str().expect("a value")).expect("JSON");
    assert_eq!(
        kept["securityContext"]["capabilities"]["add"],
        json!(["NET_ADMIN", "NET_RAW"])
    );
    after["spec"]["initContainers"][0]["env"][0] = variable(&gated);
    assert_eq!(after, gated);
}
