//! Who decides what, and in which order.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use common::{by_default, fixture, mutated, typed, with_args, with_metadata};
use serde_json::{Value, json};
use sidestep_contract::keys;
use sidestep_webhook::cluster::{Cluster, Namespace};
use sidestep_webhook::decide::{Accelerate, Decision, Verdict, decide};
use sidestep_webhook::settings::{Delivery, Enrolment, Reach, Settings};

fn labelled(key: &str, value: &str) -> Namespace {
    Namespace {
        labels: [(key.to_owned(), value.to_owned())].into(),
        ..Namespace::default()
    }
}

fn annotated(key: &str, value: &str) -> Namespace {
    Namespace {
        annotations: [(key.to_owned(), value.to_owned())].into(),
        ..Namespace::default()
    }
}

fn opt_in() -> Settings {
    Settings {
        enrolment: Enrolment::OptIn,
        ..Settings::default()
    }
}

fn in_namespace(pod: &Value, namespace: &Namespace, settings: &Settings) -> Verdict {
    decide(&typed(pod), Some(namespace), &Cluster::assumed(), settings)
}

fn word(pod: &Value, namespace: &Namespace, settings: &Settings) -> &'static str {
    in_namespace(pod, namespace, settings).decision.word()
}

fn accelerated(verdict: Verdict) -> Accelerate {
    match verdict.decision {
        Decision::Accelerate(made) => *made,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_pod_decides_before_its_namespace_and_the_namespace_before_the_cluster() {
    let silent = fixture("client");
    let nothing = Namespace::default();
    let (opt_out, opt_in) = (Settings::default(), opt_in());
    let no = labelled(keys::ENABLED, "false");
    let yes = annotated(keys::ENABLED, "true");
    assert_eq!(word(&silent, &nothing, &opt_out), "accelerated");
    assert_eq!(word(&silent, &nothing, &opt_in), "not-opted-in");
    assert_eq!(word(&silent, &yes, &opt_in), "accelerated");
    assert_eq!(word(&silent, &no, &opt_out), "opted-out");
    for field in ["labels", "annotations"] {
        let asks = with_metadata("client", field, keys::ENABLED, "true");
        let refuses = with_metadata("client", field, keys::ENABLED, "false");
        assert_eq!(word(&asks, &no, &opt_in), "accelerated");
        assert_eq!(word(&refuses, &yes, &opt_out), "opted-out");
    }
}

#[test]
fn a_refusal_says_whose_it_is() {
    let verdict = in_namespace(
        &fixture("client"),
        &labelled(keys::ENABLED, "false"),
        &Settings::default(),
    );
    let Decision::Leave(reason) = verdict.decision else {
        panic!("{verdict:?}")
    };
    assert_eq!(
        reason.annotation(),
        "opted-out: opted out by the namespace's sidestep.dev/enabled=false"
    );
}

#[test]
fn a_word_that_means_nothing_leaves_the_pod() {
    let pod = with_metadata("client", "labels", keys::ENABLED, "yes please");
    assert_eq!(by_default(&pod).decision.word(), "bad-setting");
}

#[test]
fn a_namespace_that_is_not_known_leaves_a_pod_that_says_nothing() {
    let settings = Settings::default();
    let word = |pod: &Value| {
        decide(&typed(pod), None, &Cluster::assumed(), &settings)
            .decision
            .word()
    };
    assert_eq!(word(&fixture("client")), "namespace-unknown");
    let asks = with_metadata("client", "labels", keys::ENABLED, "true");
    assert_eq!(word(&asks), "accelerated");
}

#[test]
fn a_runtime_that_may_have_a_kernel_of_its_own_is_accelerated_only_if_the_pod_itself_says_so() {
    let word = |pod: &Value, namespace| word(pod, namespace, &Settings::default());
    let nothing = Namespace::default();
    let mut pod = fixture("client");
    pod["spec"]["runtimeClassName"] = "performance".into();
    assert_eq!(word(&pod, &nothing), "unknown-runtime");
    let yes = labelled(keys::ENABLED, "true");
    assert_eq!(word(&pod, &yes), "unknown-runtime", "a namespace has many");
    pod["metadata"]["annotations"][keys::ENABLED] = "true".into();
    assert_eq!(word(&pod, &nothing), "accelerated");
    pod["spec"]["overhead"] = json!({"memory": "160Mi"});
    assert_eq!(word(&pod, &nothing), "sandboxed-runtime");
}

#[test]
fn the_shortcut_reaches_as_far_as_the_pod_or_its_namespace_or_the_cluster_says() {
    let settings = Settings {
        reach: Reach::Node,
        ..Settings::default()
    };
    let silent = fixture("client");
    let says = with_metadata("client", "annotations", keys::SHORTCUT, "pod");
    let off = annotated(keys::SHORTCUT, "off");
    let reach = |pod: &Value, namespace: &Namespace| {
        accelerated(in_namespace(pod, namespace, &settings)).reach
    };
    assert_eq!(reach(&silent, &Namespace::default()), Reach::Node);
    assert_eq!(reach(&silent, &off), Reach::Off);
    assert_eq!(reach(&says, &off), Reach::Pod);
    let namespace = annotated(keys::SHORTCUT, "namespace");
    assert_eq!(reach(&silent, &namespace), Reach::Namespace);
    assert_eq!(reach(&says, &namespace), Reach::Pod);
    assert_eq!(accelerated(by_default(&silent)).reach, Reach::Namespace);
}

#[test]
fn a_reach_that_means_nothing_is_off_with_a_warning() {
    let pod = with_metadata("client", "annotations", keys::SHORTCUT, "far");
    let verdict = by_default(&pod);
    assert_eq!(
        verdict.warnings,
        ["sidestep.dev/shortcut is \"far\", expected off, pod, namespace or node: off is used"]
    );
    assert_eq!(accelerated(verdict).reach, Reach::Off);
    assert_eq!(
        mutated(&pod)["metadata"]["annotations"][keys::SHORTCUT],
        "off"
    );
}

#[test]
fn only_a_workload_says_that_the_shortcut_may_deliver_into_its_application() {
    let namespace = annotated(keys::SHORTCUT_INTO, "application");
    let silent = in_namespace(&fixture("client"), &namespace, &Settings::default());
    assert_eq!(silent.warnings.len(), 1);
    assert_eq!(accelerated(silent).delivery, Delivery::Proxy);
    let says = with_metadata("client", "annotations", keys::SHORTCUT_INTO, "application");
    assert_eq!(
        accelerated(by_default(&says)).delivery,
        Delivery::Application
    );
}

#[test]
fn a_gate_whose_probe_is_excluded_gets_another_probe_port() {
    let pod = with_args("client", &["-o", "15002,15003"]);
    let gate = accelerated(by_default(&pod)).gate;
    let args = gate.args.expect("arguments");
    assert_eq!(args[1], "--iptables-probe-port=15004");
    let once = mutated(&pod);
    assert_eq!(mutated(&once), once);
    assert_eq!(by_default(&once).warnings, Vec::<String>::new());
}

#[test]
fn a_pod_whose_policy_takes_more_than_a_pods_share_is_left() {
    let odd = |count: u16| (0..count).map(|n| (2 * n + 1).to_string());
    let decided = |count| {
        let ports: Vec<String> = odd(count).collect();
        let pod = with_args("client", &["-o", &ports.join(",")]);
        by_default(&pod).decision
    };
    assert_eq!(decided(3_000).word(), "accelerated");
    let Decision::Leave(reason) = decided(4_000) else {
        panic!("it is accelerated");
    };
    assert_eq!(reason.word(), "too-many-rules");
    let why = reason.to_string();
    assert!(why.starts_with("ports of the policy take"), "{why}");
}

#[test]
fn a_gate_that_could_never_open_is_not_made() {
    for args in [
        ["-o", "1:65535"],
        // Not the first proxy user: what the first one's rules pass, the second's never see.
        ["-u", "0,1337"],
        // The last word on the port.
        ["-o15002", "--iptables-probe-port=15002"],
    ] {
        let pod = with_args("client", &args);
        let word = by_default(&pod).decision.word();
        assert_eq!(word, "gate-stays-shut", "{args:?}");
    }
}

#[test]
fn what_is_not_injected_or_not_reachable_stays_untouched() {
    let mut bare = fixture("client");
    bare["spec"]["initContainers"] = json!([]);
    let mirror = with_metadata("client", "annotations", keys::MIRROR, "x");
    for (pod, word) in [(bare, "no-istio-init"), (mirror, "mirror-pod")] {
        assert_eq!(by_default(&pod).decision.word(), word);
        assert_eq!(mutated(&pod), pod);
    }
}

#[test]
fn pods_with_a_second_interface_by_their_namespace_are_left() {
    let namespace = labelled("k8s.ovn.org/primary-user-defined-network", "");
    let pod = fixture("client");
    for pod in [&pod, &mutated(&pod)] {
        let verdict = in_namespace(pod, &namespace, &Settings::default());
        assert_eq!(verdict.decision.word(), "several-networks");
    }
}

#[test]
fn a_host_network_pod_is_left_with_the_reason() {
    let mut pod = fixture("client");
    pod["spec"]["hostNetwork"] = true.into();
    let after = mutated(&pod);
    assert_eq!(
        after["metadata"]["annotations"][keys::LEFT_ALONE],
        "host-network: the pod has hostNetwork: true"
    );
    assert_eq!(after["spec"], pod["spec"]);
}
