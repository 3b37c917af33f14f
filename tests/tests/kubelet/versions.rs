//! The node's pods are captured by another version's programs, whose maps have another layout: an earlier one's when the
//! agent is upgraded, a later one's when it is taken back. Two real builds under load: lifecycle's `layouts.rs`.

use std::fs;

use sidestep_ebpf_common::ABI_VERSION;
use sidestep_kit::{
    actor::assert_captured,
    kubelet::KubeNode,
    needs,
    redirect::{PodState, SERVICE},
};

#[needs(apiserver)]
fn an_earlier_versions_programs_keep_their_pods_until_those_have_ended() {
    another_versions_programs_keep_their_pods(ABI_VERSION - 1);
}

#[needs(apiserver)]
fn a_later_versions_programs_keep_their_pods_until_those_have_ended() {
    another_versions_programs_keep_their_pods(ABI_VERSION + 1);
}

fn another_versions_programs_keep_their_pods(other: u32) {
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

    node.start_agent();
    let status = node.wait_for("old", PodState::Kept);
    let reason = status.reason.unwrap_or_default();
    assert!(reason.contains(&format!("(v{other})")), "{reason}");
    let new = node.create("new", "");
    let new_sandbox = new.sandbox("10.77.0.11");
    let new_proxy = new_sandbox.proxy();
    node.wait_for("new", PodState::Active);
    let app = sandbox.app();
    for (app, address) in [(&app, "10.77.0.10"), (&new_sandbox.app(), "10.77.0.11")] {
        assert_captured(app, "outbound", SERVICE);
        assert_captured(&outside, "inbound", &format!("{address}:8080"));
    }

    drop((app, proxy, sandbox));
    node.agent()
        .wait("the other version to go", || !theirs.exists());
    assert_captured(&new_sandbox.app(), "outbound", SERVICE);
    assert_captured(&outside, "inbound", "10.77.0.11:8080");
    drop(new_proxy);
}
