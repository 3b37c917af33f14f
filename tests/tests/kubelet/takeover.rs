//! What an agent finds that another left.

use std::{fs, path::PathBuf, process::Command};

use sidestep_kit::{
    actor::assert_captured,
    bpftool,
    kubelet::{Driver, KubeNode, PATIENCE},
    needs,
    process::eventually,
    redirect::{PodState, SERVICE},
};

/// Sets of a pod's policy.
const SETS: [&str; 3] = ["PORTS", "ADDRS", "GROUPS"];

#[needs(apiserver)]
fn the_sets_that_an_earlier_agent_wrote_are_swept() {
    let mut node = KubeNode::with_agent();
    let pod = node.create("web", "-d 9999 -o 8888");
    let (sandbox, _proxy) = pod.active("10.77.0.10");
    let entries = node.base().entries(&SETS);
    assert!(entries > 0);
    for _ in 0..2 {
        node.take_agent().kill();
        node.start_agent();
        node.wait_for("web", PodState::Active);
        let swept = eventually(PATIENCE, || node.base().entries(&SETS) == entries);
        assert!(swept, "{} instead of {entries}", node.base().entries(&SETS));
    }
    assert_captured(&sandbox.app(), "outbound", SERVICE);
}

#[needs(apiserver)]
fn cgroups_of_agents_that_were_killed_are_removed() {
    let node = KubeNode::without_agent(Driver::Cgroupfs);
    let mut ended = Command::new("true").spawn().expect("a process");
    ended.wait().expect("it is our child");
    let folder = |what: &str| {
        node.kubepods()
            .path()
            .join(format!("sidestep-{what}-{}", ended.id()))
    };
    let left = [
        folder("probe"),
        folder("rehearsal").join("sidestep-probe-1"),
        folder("selftest"),
    ];
    for cgroup in &left {
        fs::create_dir_all(cgroup).expect("a cgroup");
    }
    node.start_agent();
    let names: Vec<PathBuf> = fs::read_dir(node.kubepods().path())
        .expect("a cgroup")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("sidestep-"))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

/// The programs that running pods depend on are replaced by such as were seen to act, and not before.
#[needs(apiserver)]
fn a_new_agents_programs_are_tried_before_running_pods_get_them() {
    let mut node = KubeNode::with_agent();
    let pod = node.create("web", "");
    let (sandbox, _proxy) = pod.active("10.77.0.10");
    let app = sandbox.app();
    let before = programs(&node);
    assert_eq!(before.len(), 11);
    node.take_agent().kill();
    // Its probe cannot be anywhere.
    let most = node.kubepods().path().join("cgroup.max.descendants");
    fs::write(&most, "0").expect("a cgroup");
    let agent = node.launch_agent();
    agent.wait("the agent to say that its programs are not proven", || {
        let errors = agent.status().map(|status| status.errors.join("\n"));
        errors.is_some_and(|errors| errors.contains("running pods keep the ones they have"))
    });
    assert_eq!(programs(&node), before);
    assert_captured(&app, "outbound", SERVICE);

    fs::write(&most, "max").expect("a cgroup");
    node.agent().wait_until_ready();
    let after = programs(&node);
    assert_eq!(after.len(), before.len());
    assert!(
        after.iter().all(|id| !before.contains(id)),
        "{before:?} {after:?}"
    );
    let rehearsal = node.base().folders().pins().join("rehearsal");
    assert!(!rehearsal.exists(), "what was tried is left");
    assert_captured(&app, "outbound", SERVICE);
}

/// The ids of the programs in the pinned links.
fn programs(node: &KubeNode) -> Vec<u64> {
    let links = node.base().pinned("links").into_iter();
    links.map(|link| bpftool::program_of(&link)).collect()
}
