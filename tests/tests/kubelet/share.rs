//! A pod to which something is refused: who looks for the reason finds it.

use sidestep_ebpf_common::flow::FLOW_SHARE;
use sidestep_kit::{
    actor::{Errno, Family, Identity, Kind, assert_captured},
    kubelet::{KubeNode, PATIENCE},
    needs,
    process::eventually,
    redirect::{OpenCount, PodState, SERVICE},
};

#[needs(apiserver)]
fn refused_raw_sockets_are_counted_and_told_of_with_the_word_that_lets_them() {
    let mut node = KubeNode::with_agent();
    let sandbox = node.create("runner", "").sandbox("10.77.0.10");
    let _proxy = sandbox.proxy();
    node.wait_for("runner", PodState::Active);
    let root = sandbox.container(&Identity::new(0, 0));
    let refused = root.socket(Family::V4, Kind::RawIp).err();
    assert_eq!(refused, Some(Errno::NOT_PERMITTED));
    // The next look is half a minute away, or the next agent's first.
    node.take_agent().kill();
    node.start_agent();
    let told = node.wait_for_event(&node.known("runner"), "RawSocketRefused");
    assert!(told.contains("sidestep.dev/raw-sockets=allow"), "{told}");
    node.wait_for_metric("sidestep_agent_raw_sockets_refused_total", 1.0..=1.0);
}

#[needs(apiserver)]
fn refused_connections_are_counted_and_told_of_at_the_pod() {
    let mut node = KubeNode::with_agent();
    let sandbox = node.create("leaky", "").sandbox("10.77.0.10");
    let _proxy = sandbox.proxy();
    let cookie = node.wait_for("leaky", PodState::Active).cookie;
    let count = OpenCount::of(node.base(), cookie.expect("an armed pod"));
    node.take_agent().kill();
    count.set(FLOW_SHARE);
    let app = sandbox.app();
    assert_eq!(app.call(SERVICE).err(), Some(Errno::NOT_PERMITTED));

    node.start_agent();
    let told = node.wait_for_event(&node.known("leaky"), "ConnectionsRefused");
    assert!(told.contains("65536 captured connections open"), "{told}");
    node.wait_for_metric("sidestep_agent_connections_refused_total", 1.0..=1.0);
    let rows = node.agent().pod("leaky").expect("a known pod").rows;
    assert_eq!(rows.get("out-full"), Some(&1), "{rows:?}");
    // There are no such connections, as the agent has seen meanwhile.
    assert!(eventually(PATIENCE, || count.get() == 0));
    assert_captured(&app, "outbound", SERVICE);
}
