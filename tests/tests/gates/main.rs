//! Istio's own validation accepts every pod that `sidestep mutate` accelerates: the gate of each fixture, run by the real
//! istio-iptables as its container would run it, waits while nobody has armed the pod and opens when the agent has.
//! Kubernetes accepts all of them, too.

mod accepted;
mod gate;
mod mutated;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::json;
use sidestep_contract::istio_init;
use sidestep_kit::{
    needs, parts,
    process::eventually,
    redirect::{Node, PodState},
};

use crate::{gate::Trial, mutated::GatedPod};

/// Longer than any gate may need once its pod is armed.
const PATIENCE: Duration = Duration::from_mins(1);

/// What Istio's program exits with when it validated in vain.
const NOT_REDIRECTED: i32 = 126;

/// The addresses a pod may have. The validation dials [::6] where the first one is IPv6.
const V4: &[&str] = &["10.77.3.7", "fd77::3:7"];
const V6: &[&str] = &["fd77::3:7"];

/// Istio's agent, whose subcommand istio-iptables is what the container runs.
fn program() -> PathBuf {
    parts::program("pilot-agent")
}

#[needs(root, part("pilot-agent"))]
fn every_gate_waits_until_its_pod_is_armed_and_opens_then() {
    let program = program();
    let pods = mutated::all(&["--probe-timeout", "300"]);
    assert!(pods.len() >= 30, "only {} different gates", pods.len());
    let node = Node::alone();
    let mut trials: Vec<_> = pods
        .iter()
        .flat_map(|pod| [(pod, V4), (pod, V6)])
        .map(|(pod, addresses)| Trial::start(&node, &program, pod, addresses))
        .collect();
    for trial in &mut trials {
        let tried = eventually(PATIENCE, || trial.attempts() >= 2 || trial.has_ended());
        assert!(tried && !trial.has_ended(), "it must wait: {trial}");
    }
    for trial in &trials {
        trial.arm(&node);
    }
    let deadline = Instant::now() + PATIENCE;
    for trial in &mut trials {
        let code = trial.exit_code(deadline);
        assert_eq!(code, Some(0), "it must open: {trial}\n{}", node.agent());
    }
    println!("{} gates of {} pods opened", trials.len(), pods.len());
}

#[needs(root, part("pilot-agent"))]
fn a_gate_whose_pod_nobody_arms_ends_with_its_timeout() {
    let program = program();
    let node = Node::without_agent();
    let pods = mutated::of("client", &["--probe-timeout", "2"]);
    let mut trial = Trial::start(&node, &program, &pods[0], V4);
    let code = trial.exit_code(Instant::now() + PATIENCE);
    assert_eq!(code, Some(NOT_REDIRECTED), "{trial}");
    assert!(trial.attempts() >= 2, "{trial}");
}

/// Not a gate is made of these, with the reason that it would stay shut. It would.
#[needs(root, part("pilot-agent"))]
fn gates_that_were_not_made_would_have_stayed_shut_in_an_armed_pod() {
    let program = program();
    let node = Node::alone();
    let mut trials: Vec<_> = ["exclude-all-ports", "loopback-cidr"]
        .into_iter()
        .map(|fixture| {
            let mut pod = mutated::injected(fixture);
            let typed = pod.typed();
            let init = istio_init(&typed).expect("an istio-init");
            let gate = init.gate(Duration::from_secs(6)).expect("a gate");
            pod.value["spec"]["initContainers"][0] = json!(gate);
            let trial = Trial::start(&node, &program, &pod, V4);
            trial.arm(&node);
            node.agent().wait_for(trial.name(), PodState::is_programmed);
            trial
        })
        .collect();
    let deadline = Instant::now() + PATIENCE;
    for trial in &mut trials {
        assert_eq!(trial.exit_code(deadline), Some(NOT_REDIRECTED), "{trial}");
    }
}

#[test]
fn every_pod_that_mutate_accelerates_has_one_gate() {
    let pods: Vec<GatedPod> = mutated::everything(&[]);
    assert!(pods.len() >= 60, "only {} pods are accelerated", pods.len());
    for pod in &pods {
        let pod = pod.typed();
        let init = istio_init(&pod).expect("one istio-init");
        assert!(init.is_gate, "{pod:?}");
    }
}
