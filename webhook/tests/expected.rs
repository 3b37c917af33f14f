//! What becomes of real injector output. The expected patches are kept beside, to be read; `UPDATE_EXPECTED=1` writes them.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use std::env;
use std::fmt::Write as _;
use std::fs;

use common::{by_default, fixtures, mutated, package, read, typed};
use sidestep_contract::Policy;
use sidestep_webhook::decide::Decision;
use sidestep_webhook::patch::patch;

fn text(name: &str, pod: &serde_json::Value) -> String {
    let verdict = by_default(pod);
    let mut text = format!("# {name}: {}\n", verdict.decision.word());
    for warning in &verdict.warnings {
        writeln!(text, "# warning: {warning}").expect("a text takes it");
    }
    let patch = patch(pod, &verdict);
    text + &yaml_serde::to_string(&patch).expect("a patch is YAML")
}

#[test]
fn every_fixture_gets_its_expected_patch() {
    let folder = package().join("tests/expected");
    let update = env::var_os("UPDATE_EXPECTED").is_some();
    let mut wrong = Vec::new();
    for (name, file) in fixtures() {
        let text = text(&name, &read(&file));
        let expected = folder.join(format!("{name}.patch.yaml"));
        if update {
            fs::write(&expected, &text).expect("the folder can be written");
        }
        let expected = fs::read_to_string(&expected).unwrap_or_default();
        if text != expected {
            wrong.push(format!("{name}: expected\n{expected}but made\n{text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn twice_is_once() {
    for (name, file) in fixtures() {
        let once = mutated(&read(&file));
        let verdict = by_default(&once);
        assert_eq!(patch(&once, &verdict).0, vec![], "{name}");
        assert_eq!(verdict.warnings, Vec::<String>::new(), "{name}");
    }
}

#[test]
fn a_gated_pod_has_the_policy_it_had() {
    let mut accelerated = 0;
    for (name, file) in fixtures() {
        let before = read(&file);
        let policy = Policy::from_pod(&typed(&before));
        let after = Policy::from_pod(&typed(&mutated(&before)));
        match by_default(&before).decision {
            Decision::Accelerate(made) => {
                accelerated += 1;
                assert_eq!(after.as_ref(), Ok(&made.policy), "{name}");
                assert_eq!(after, policy, "{name}");
            }
            Decision::Leave(_) | Decision::Nothing(_) => assert_eq!(after, policy, "{name}"),
        }
    }
    assert!(accelerated >= 18, "only {accelerated} are accelerated");
}
