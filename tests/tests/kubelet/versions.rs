//! The node's pods are captured by another version's programs, whose maps have another layout: an earlier one's when the
//! agent is upgraded, a later one's when it is taken back.

use std::fs;

use sidestep_ebpf_common::ABI_VERSION;
use sidestep_kit::{
    actor::assert_captured,
    kubelet::KubeNode,
    needs,
    redirect::{PodState, SERVICE},
};

#[needs(apiserver)]
fn an_earlier_versions_programs_stay_alone_until_their_pods_have_ended() {
    another_versions_programs_stay_alone(ABI_VERSION - 1);
}

#[needs(apiserver)]
fn a_later_versions_programs_stay_alone_until_their_pods_have_ended() {
    another_versions_programs_stay_alone(ABI_VERSION + 1);
}

fn another_versions_programs_stay_alone(other: u32) {
    let mut node = KubeNode::with_agent();
    let outside = node.base().outside();
    let pins = node.base().folders().pins();
    let old = node.create("old", "");
    let (sandbox, proxy) = old.active("10.77.0.10");
    node.take_agent().kill();
    let (ours, theirs) = [ABI_VERSION, other]
        .map(|version| pins.join(format!("v{version}")))
        .into();
    fs::rename(&ours, &theirs).expect("a folder on a bpffs");

    let agent = node.launch_agent();
    agent.wait("the agent to say why it waits", || {
        let errors = agent.status().map(|status| status.errors.join("\n"));
        errors.is_some_and(|errors| {
            errors.contains("another version of Sidestep, on which 1 running pods")
                && errors.contains(&theirs.to_string_lossy().into_owned())
        })
    });
    assert_eq!(node.admin("/readyz").0, 503);
    let new = node.create("new", "");
    let new_sandbox = new.sandbox("10.77.0.11");
    let new_proxy = new_sandbox.proxy();
    assert!(!ours.exists(), "programs were attached beside the others");
    let app = sandbox.app();
    assert_captured(&app, "outbound", SERVICE);
    assert_captured(&outside, "inbound", "10.77.0.10:8080");

    drop((app, proxy, sandbox));
    node.agent().wait_until_ready();
    assert!(!theirs.exists(), "the other version's programs are left");
    node.wait_for("new", PodState::Active);
    assert_captured(&new_sandbox.app(), "outbound", SERVICE);
    assert_captured(&outside, "inbound", "10.77.0.11:8080");
    drop(new_proxy);
}
