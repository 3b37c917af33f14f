//! An agent that suddenly may open no more files.

use std::process::Command;

use sidestep_kit::{
    actor::assert_captured,
    kubelet::KubeNode,
    needs,
    net::run,
    redirect::{PodState, SERVICE},
};

#[needs(apiserver)]
fn an_agent_that_can_open_nothing_any_more_disarms_nobody() {
    let node = KubeNode::with_agent();
    let kept = node.create("kept", "");
    let kept_sandbox = kept.sandbox("10.77.0.10");
    let _kept_proxy = kept_sandbox.proxy();
    let deleted = node.create("deleted", "");
    let deleted_sandbox = deleted.sandbox("10.77.0.11");
    let _deleted_proxy = deleted_sandbox.proxy();
    for pod in ["kept", "deleted"] {
        node.wait_for(pod, PodState::Active);
    }
    let pid = node.agent().pid().to_string();
    let limit = |files: &str| {
        let files = format!("--nofile={files}:");
        run(Command::new("prlimit").args(["--pid", &pid, &files]));
    };
    let limits = run(Command::new("prlimit").args(["--pid", &pid, "--nofile", "--raw"]));
    let limits = String::from_utf8_lossy(&limits.stdout).into_owned();
    let fields: Vec<&str> = limits
        .lines()
        .last()
        .expect("a table")
        .split_whitespace()
        .collect();
    // The columns between name and unit are the soft and the hard limit: it has taken all that it may have.
    let [.., soft, hard, "files"] = fields[..] else {
        panic!("{limits}");
    };
    assert_eq!(soft, hard, "{limits}");

    deleted.delete();
    node.agent().wait("the pod to be forgotten", || {
        node.agent().pod("deleted").is_none()
    });
    limit("3");
    let failed_twice = || node.agent().log().matches("check failed").count() >= 2;
    node.agent().wait("two checks to fail", failed_twice);
    limit(hard);
    node.agent().wait_until_ready();
    assert_eq!(node.inbound_links(), 2);
    for (sandbox, address) in [
        (&kept_sandbox, "10.77.0.10:8080"),
        (&deleted_sandbox, "10.77.0.11:8080"),
    ] {
        assert_captured(&sandbox.app(), "outbound", SERVICE);
        assert_captured(&node.base().outside(), "inbound", address);
    }
}
