//! Programs that are loaded and attached, and yet do not do what they should: the agent is not ready, and says why.

use std::{process::Command, time::Duration};

use sidestep_kit::{
    actor::assert_captured,
    binary,
    foreign::PortChanger,
    kubelet::{Driver, KubeNode, PATIENCE},
    needs,
    process::eventually,
    redirect::{PodState, SERVICE},
};

/// Longer than between two proofs.
const A_WHILE: Duration = Duration::from_secs(90);
const OUTBOUND: u16 = 15001;
const NOWHERE: u16 = 9;
const WHY: &str = "connect4 did not send a call to the proxy";

/// Another program, which has the last word, sends elsewhere what ours sent to the proxy.
#[needs(apiserver)]
fn an_agent_whose_programs_are_undone_by_others_is_not_ready_until_they_act() {
    let node = KubeNode::without_agent(Driver::Cgroupfs);
    let machine = node.base().cgroup();
    let other = PortChanger::attach(machine, OUTBOUND, NOWHERE);
    let pod = node.create("web", "");
    let sandbox = pod.sandbox("10.77.0.10");
    let _proxy = sandbox.proxy();
    node.launch_agent()
        .wait("the agent to say why", || says(&node, WHY));
    assert_eq!(links(&node), 11, "the programs are attached");
    let known = node.agent().pod("web");
    assert!(known.is_none_or(|pod| !pod.state.is_programmed()));

    drop(other);
    node.agent().wait_until_ready();
    node.wait_for("web", PodState::Active);
    assert_captured(&sandbox.app(), "outbound", SERVICE);
}

/// As when a network plug-in is installed on a node where pods run.
#[needs(apiserver)]
fn an_agent_whose_programs_are_undone_later_is_not_ready_any_more() {
    let node = KubeNode::with_agent();
    let pod = node.create("web", "");
    let (sandbox, _proxy) = pod.active("10.77.0.10");
    let app = sandbox.app();

    let other = PortChanger::attach(node.base().cgroup(), OUTBOUND, NOWHERE);
    assert!(app.call(SERVICE).is_err());
    assert!(eventually(A_WHILE, || says(&node, WHY)), "{}", node.agent());
    // It goes on with what it can do.
    assert_eq!(node.admin("/livez").0, 200);
    drop(other);
    assert!(
        eventually(A_WHILE, || node.admin("/readyz").0 == 200),
        "{}",
        node.agent()
    );
    assert_captured(&app, "outbound", SERVICE);
}

/// The hook is restored at once, behind a program that undoes what it does: that it is attached proves nothing.
#[needs(apiserver)]
fn a_hook_that_was_restored_is_proven_again() {
    let node = KubeNode::with_agent();
    let other = PortChanger::attach(node.base().cgroup(), OUTBOUND, NOWHERE);
    let mut links = node.base().pinned("links").into_iter();
    let link = links.find(|path| path.ends_with("connect4"));
    let mut detach = Command::new("bpftool");
    detach
        .args(["link", "detach", "pinned"])
        .arg(link.expect("a pinned link"));
    sidestep_kit::net::run(&mut detach);
    assert!(
        eventually(PATIENCE, || says(&node, WHY)),
        "{}",
        node.agent()
    );
    let repairs = node.agent().status().expect("an answer").repairs;
    assert!(
        repairs.iter().any(|what| what.contains("connect4")),
        "{repairs:?}"
    );
    drop(other);
    node.agent().wait_until_ready();
}

/// Whether the agent is not ready for this reason, for kubelet as for people.
fn says(node: &KubeNode, why: &str) -> bool {
    let status = node.agent().status();
    if !status.is_some_and(|status| status.errors.iter().any(|error| error.contains(why))) {
        return false;
    }
    let (status, body) = node.admin("/readyz");
    if status != 503 || !body.contains(why) {
        return false;
    }
    let mut command = Command::new(binary("sidestep"));
    let shown = command.arg("status").arg("--socket").arg(node.socket());
    let shown = shown.output().expect("it runs");
    assert_eq!(shown.status.code(), Some(2));
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    text.lines()
        .any(|line| line.starts_with("error: programs: ") && line.contains(why))
}

/// How many of our hooks have a program.
fn links(node: &KubeNode) -> usize {
    node.base().pinned("links").len()
}
