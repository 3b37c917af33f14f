//! Pods that arrive with a gate, as it was made or changed by others.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use std::collections::BTreeMap;

use common::{by_default, fixture, istio_init, mutated, typed, with_metadata, with_settings};
use serde_json::{Value, json};
use sidestep_contract::keys;
use sidestep_webhook::cluster::{Cluster, Namespace};
use sidestep_webhook::decide::{Decision, decide};
use sidestep_webhook::settings::{Enrolment, Settings};

/// As an earlier release left it: without what the gate was made of.
fn old_gate(mut gated: Value) -> Value {
    let index = istio_init(&gated);
    gated["spec"]["initContainers"][index]["env"] = json!([]);
    gated
}

#[test]
fn an_old_gate_stays_so_and_is_told_what_is_missing() {
    let gated = old_gate(mutated(&fixture("client")));
    let nobody = Cluster {
        nodes: Some(BTreeMap::new()),
        ..Cluster::default()
    };
    let (pod, namespace) = (typed(&gated), Namespace::default());
    let verdict = decide(&pod, Some(&namespace), &nobody, &Settings::default());
    assert_eq!(
        verdict.warnings,
        [
            "the pod's istio-init is already Sidestep's gate and stays it, although no node agent is ready anywhere in \
             the cluster"
        ]
    );
    assert_eq!(verdict.decision.word(), "accelerated");
    assert_eq!(istio_init(&gated), 0);
}

type Change = fn(&mut Value);

/// What other webhooks do to a gate. The first three are cases from the field.
fn changes() -> Vec<(&'static str, Change)> {
    vec![
        ("its command is wrapped", |gate| {
            gate["command"] = json!(["/vault/vault-env"]);
            let args = gate["args"].as_array_mut().expect("arguments");
            args.insert(0, "/usr/local/bin/pilot-agent".into());
            let env = gate["env"].as_array_mut().expect("variables");
            env.push(json!({"name": "VAULT_ADDR", "value": "https://vault.example:8200"}));
        }),
        ("it gets variables from a ConfigMap", |gate| {
            gate["envFrom"] = json!([{"configMapRef": {"name": "corporate-proxy"}}]);
        }),
        ("its dropped capabilities are replaced", |gate| {
            gate["securityContext"]["capabilities"]["drop"] = json!(["NET_RAW"]);
        }),
        ("it runs as root", |gate| {
            gate["securityContext"]["runAsUser"] = 0.into();
        }),
        ("its arguments are gone", |gate| {
            gate["args"] = json!([]);
        }),
        ("an argument refers to a variable", |gate| {
            gate["args"][4] = "$(PORT)".into();
        }),
    ]
}

#[test]
fn a_gate_that_was_changed_is_made_whole_again() {
    for name in ["client", "dns", "environment", "exclude-probe-port"] {
        let gated = mutated(&fixture(name));
        let index = istio_init(&gated);
        for (what, change) in changes() {
            let mut changed = gated.clone();
            change(&mut changed["spec"]["initContainers"][index]);
            let verdict = by_default(&changed);
            assert_eq!(verdict.decision.word(), "accelerated", "{name}: {what}");
            assert_eq!(verdict.warnings.len(), 1, "{name}: {what}");
            let after = mutated(&changed);
            assert_eq!(after, gated, "{name}: {what}");
        }
    }
}

#[test]
fn what_a_gate_needs_not_itself_stays_without_a_warning() {
    let mut gated = mutated(&fixture("client"));
    let gate = &mut gated["spec"]["initContainers"][0];
    gate["image"] = "mirror.example/istio/proxyv2:1.31.1".into();
    gate["volumeMounts"] = json!([{"name": "certs", "mountPath": "/certs"}]);
    let env = gate["env"].as_array_mut().expect("variables");
    env.push(json!({"name": "HTTPS_PROXY", "value": "proxy.example:3128"}));
    let verdict = by_default(&gated);
    assert_eq!(verdict.decision.word(), "accelerated");
    assert_eq!(verdict.warnings, [""; 0]);
    assert_eq!(mutated(&gated), gated);
}

#[test]
fn a_gated_pod_that_is_left_now_gets_its_istio_init_back() {
    let networks: Change = |pod| {
        pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] = "macvlan".into();
    };
    let opts_out: Change = |pod| pod["metadata"]["labels"][keys::ENABLED] = "false".into();
    let host: Change = |pod| pod["spec"]["hostNetwork"] = true.into();
    let reasons = [
        ("several-networks", networks),
        ("opted-out", opts_out),
        ("host-network", host),
    ];
    for name in ["client", "environment", "exclude-probe-port"] {
        let fresh = fixture(name);
        let gated = mutated(&fresh);
        let index = istio_init(&fresh);
        for (word, change) in reasons {
            // Whole, and wrapped besides.
            for wrap in [None, Some(changes()[0].1)] {
                let mut changed = gated.clone();
                change(&mut changed);
                if let Some(wrap) = wrap {
                    wrap(&mut changed["spec"]["initContainers"][index]);
                }
                let verdict = by_default(&changed);
                assert_eq!(verdict.decision.word(), word, "{name}");
                let after = mutated(&changed);
                let init = &after["spec"]["initContainers"][index];
                assert_eq!(init, &fresh["spec"]["initContainers"][index], "{name}");
                let metadata = &after["metadata"];
                assert_eq!(metadata["labels"].get(keys::ACCELERATED), None, "{name}");
                assert!(
                    metadata["annotations"][keys::LEFT_ALONE].is_string(),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn without_enrolment_every_gate_becomes_istio_init_again() {
    let settings = Settings {
        enrolment: Enrolment::None,
        ..Settings::default()
    };
    let fresh = with_metadata("client", "labels", keys::ENABLED, "true");
    for pod in [fresh.clone(), mutated(&fresh)] {
        let (word, after) = with_settings(&pod, &settings);
        assert_eq!(word, "enrolment-none");
        assert_eq!(after["spec"], fresh["spec"]);
    }
}

#[test]
fn an_old_gate_that_nobody_would_arm_is_refused_with_what_was_changed() {
    let gated = old_gate(mutated(&fixture("client")));
    let host: Change = |pod| pod["spec"]["hostNetwork"] = true.into();
    let wrapped: Change = |pod| {
        pod["spec"]["initContainers"][0]["command"] = json!(["/vault/vault-env"]);
    };
    let variables: Change = |pod| {
        pod["spec"]["initContainers"][0]["envFrom"] = json!([{"configMapRef": {"name": "x"}}]);
    };
    let root: Change = |pod| {
        pod["spec"]["initContainers"][0]["securityContext"]["runAsUser"] = 0.into();
    };
    let cases = [
        ("hostNetwork: true", host),
        ("istio-init runs \"/vault/vault-env\"", wrapped),
        ("envFrom", variables),
        ("its security context are not a gate's", root),
    ];
    for (said, change) in cases {
        let mut changed = gated.clone();
        change(&mut changed);
        let verdict = by_default(&changed);
        let Decision::Refuse(reason) = &verdict.decision else {
            panic!("{said}: {:?}", verdict.decision);
        };
        assert_eq!(reason.word(), "gate-changed");
        assert!(reason.to_string().contains(said), "{reason}");
        assert_eq!(mutated(&changed), changed);
    }
    // By an annotation alone the agent would still arm it.
    let mut networks = gated.clone();
    networks["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] = "macvlan".into();
    let verdict = by_default(&networks);
    assert_eq!(verdict.decision.word(), "accelerated");
    assert!(verdict.warnings[0].contains("although annotation k8s.v1.cni.cncf.io/networks"));
}
