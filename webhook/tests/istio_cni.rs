//! Pods that istio-cni redirects as long as they have no `istio-init`.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use common::{by_default, fixture, istio_init, mutated, typed, with_metadata, with_settings};
use serde_json::{Value, json};
use sidestep_contract::keys;
use sidestep_webhook::settings::{Enrolment, IstioCni, Settings};

fn only(istio_cni: IstioCni) -> Settings {
    Settings {
        istio_cni,
        ..Settings::default()
    }
}

/// The fixture with an init container of another webhook's before `istio-validation`.
fn with_an_earlier_init() -> Value {
    let mut pod = fixture("cni");
    let inits = pod["spec"]["initContainers"].as_array_mut();
    let earlier = json!({"name": "vault-agent-init", "image": "vault"});
    inits.expect("init containers").insert(0, earlier);
    pod
}

#[test]
fn istio_validation_becomes_the_gate_that_an_istio_init_would_have_become() {
    let fresh = fixture("cni");
    let after = mutated(&fresh);
    let gate = &after["spec"]["initContainers"][0];
    assert!(sidestep_contract::istio_init(&typed(&after)).is_ok_and(|init| init.is_gate));
    assert_eq!(gate["name"], keys::ISTIO_INIT);
    let args = gate["args"].as_array().expect("arguments");
    let before = fresh["spec"]["initContainers"][0]["args"].as_array();
    let (kept, added) = args.split_at(before.expect("arguments").len());
    assert_eq!(Some(&kept.to_vec()), before);
    assert_eq!(added, ["--probe-timeout=300s"]);
    // Every other container is as it was.
    let rest = |pod: &Value| {
        pod["spec"]["initContainers"]
            .as_array()
            .map(|all| all[1..].to_vec())
    };
    assert_eq!(rest(&after), rest(&fresh));
    assert_eq!(after["spec"]["containers"], fresh["spec"]["containers"]);
    assert_eq!(mutated(&after), after);
}

#[test]
fn a_gate_that_is_left_becomes_istio_validation_again() {
    let fresh = fixture("cni");
    let settings = Settings {
        enrolment: Enrolment::None,
        ..Settings::default()
    };
    for gated in [mutated(&fresh), mutated(&with_an_earlier_init())] {
        let (word, after) = with_settings(&gated, &settings);
        assert_eq!(word, "enrolment-none");
        let inits = after["spec"]["initContainers"].as_array().expect("a list");
        assert!(inits.contains(&fresh["spec"]["initContainers"][0]));
        assert!(inits.iter().all(|init| init["name"] != keys::ISTIO_INIT));
        assert_eq!(after["metadata"]["labels"].get(keys::ACCELERATED), None);
    }
}

#[test]
fn a_setting_leaves_them_to_istio_cni() {
    let pods = [fixture("cni"), with_an_earlier_init()];
    for (which, words) in [
        (IstioCni::All, ["accelerated", "accelerated"]),
        (IstioCni::GateFirst, ["accelerated", "before-the-gate"]),
        (IstioCni::None, ["istio-cni", "istio-cni"]),
    ] {
        for (pod, wanted) in pods.iter().zip(words) {
            let (word, after) = with_settings(pod, &only(which));
            assert_eq!(word, wanted, "{which:?}");
            if wanted != "accelerated" {
                assert_eq!(after["spec"], pod["spec"]);
                // One that was gated before, too.
                let (word, after) = with_settings(&mutated(pod), &only(which));
                assert_eq!(word, wanted, "{which:?}");
                assert_eq!(after["spec"], pod["spec"]);
            }
        }
        let (word, _) = with_settings(&fixture("client"), &only(which));
        assert_eq!(word, "accelerated", "istio-init's: {which:?}");
    }
}

#[test]
fn an_istio_validation_that_comes_beside_the_gate_takes_its_place() {
    let fresh = fixture("cni");
    let gated = mutated(&fresh);
    let validation = &fresh["spec"]["initContainers"][0];
    for at in [0, 1, 2] {
        let mut both = gated.clone();
        let inits = both["spec"]["initContainers"].as_array_mut();
        inits
            .expect("init containers")
            .insert(at, validation.clone());
        assert_eq!(mutated(&both), gated, "at {at}");
        // And is all that is left of them where the pod is left.
        let (_, after) = with_settings(&both, &only(IstioCni::None));
        assert_eq!(
            after["spec"]["initContainers"].as_array().map(Vec::len),
            Some(2)
        );
        assert!(
            after["spec"]["initContainers"]
                .as_array()
                .is_some_and(|all| all.contains(validation))
        );
    }
}

#[test]
fn two_fresh_ones_are_left() {
    let mut pod = fixture("client");
    let validation = fixture("cni")["spec"]["initContainers"][0].clone();
    let inits = pod["spec"]["initContainers"].as_array_mut();
    inits.expect("init containers").push(validation);
    assert_eq!(by_default(&pod).decision.word(), "several-istio-init");
    assert_eq!(mutated(&pod)["spec"], pod["spec"]);
}

#[test]
fn our_label_on_one_that_is_fresh_changes_nothing() {
    let forged = with_metadata("cni", "labels", keys::ACCELERATED, "true");
    assert_eq!(mutated(&forged), mutated(&fixture("cni")));
    let (word, after) = with_settings(&forged, &only(IstioCni::None));
    assert_eq!(word, "istio-cni");
    assert_eq!(after["metadata"]["labels"].get(keys::ACCELERATED), None);
}

#[test]
fn the_network_by_which_multus_runs_the_plugin_is_no_further_one() {
    for (networks, word) in [
        ("istio-cni", "accelerated"),
        ("default/istio-cni", "accelerated"),
        (" istio-system/istio-cni@net1 , ", "accelerated"),
        (
            r#"[{"name": "istio-cni", "namespace": "default"}]"#,
            "accelerated",
        ),
        ("[]", "accelerated"),
        ("default/istio-cni, macvlan", "several-networks"),
        ("istio-cni-2", "several-networks"),
        (
            r#"[{"name": "istio-cni"}, {"name": "macvlan"}]"#,
            "several-networks",
        ),
        (r#"[{"namespace": "istio-cni"}]"#, "several-networks"),
        ("[istio-cni]", "several-networks"),
    ] {
        let pod = with_metadata("cni", "annotations", keys::MULTUS_NETWORKS, networks);
        assert_eq!(by_default(&pod).decision.word(), word, "{networks}");
    }
    assert_eq!(istio_init(&mutated(&fixture("cni"))), 0);
}
