//! When the agent is ready, and what it says while it is not.

use std::{fs, process::Command};

use sidestep_kit::{
    actor::assert_captured,
    binary,
    kubelet::{Driver, KubeNode},
    needs,
    net::run,
    redirect::{PodState, SERVICE},
};

#[needs(apiserver)]
fn the_agent_is_ready_when_its_programs_were_seen_to_act() {
    let node = KubeNode::with_agent();
    assert_eq!(node.admin("/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(node.admin("/livez").0, 200);
    node.wait_for_metric("sidestep_agent_watch_connected", 1.0..=1.0);
    // Nothing of the probe stays.
    let entries = fs::read_dir(node.kubepods().path()).expect("a cgroup");
    let probes = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        name.to_string_lossy().contains("probe")
    });
    assert_eq!(probes.count(), 0);
    assert_eq!(node.inbound_links(), 0);
}

#[needs(apiserver)]
fn pins_that_would_not_outlive_the_container_are_refused_until_they_would() {
    let node = KubeNode::without_agent(Driver::Cgroupfs);
    let pod = node.create("web", "");
    let sandbox = pod.sandbox("10.77.0.10");
    let bpffs = node.base().folders().pins();
    let bpffs = bpffs.parent().expect("a mount point");
    run(Command::new("umount").arg(bpffs));
    let agent = node.launch_agent();
    let complains = || {
        let errors = agent
            .status()
            .map(|status| status.errors)
            .unwrap_or_default();
        errors
            .iter()
            .any(|error| error.contains("is not on a bpffs"))
    };
    agent.wait("a complaint", complains);
    let (status, why) = node.admin("/readyz");
    assert_eq!(status, 503);
    assert!(
        why.contains("programs: ") && why.contains("mount a bpffs"),
        "{why}"
    );

    let note = node.wait_for_event_here("SidestepNotReady");
    assert!(note.contains("mount a bpffs"), "{note}");

    // As the init container does. The second time there is nothing to do.
    for _ in 0..2 {
        let mut mount = Command::new(binary("sidestep-agent"));
        let pins = node.base().folders().pins();
        run(mount.args(["mount-bpffs", "--pin"]).arg(pins));
    }
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc is mounted");
    let here = format!(" {} bpf ", bpffs.display());
    assert_eq!(mounts.matches(&here).count(), 1, "{mounts}");
    agent.wait_until_ready();
    let _proxy = sandbox.proxy();
    node.wait_for("web", PodState::Active);
    assert_captured(&sandbox.app(), "outbound", SERVICE);
}

/// As with a runtime or a kubelet that puts pods elsewhere: the agent is in a pod, and no pod's cgroup says so.
#[needs(apiserver)]
fn an_agent_whose_own_container_is_in_no_pods_cgroup_is_not_ready_and_says_so() {
    let mut node = KubeNode::without_agent(Driver::Cgroupfs);
    node.arguments.push("--pod=sidestep-agent-x".to_owned());
    let agent = node.launch_agent();
    let why = format!("no pod's cgroup in {}", node.kubepods().path().display());
    agent.wait("the reason", || {
        let status = agent.status();
        status.is_some_and(|status| status.errors.iter().any(|error| error.contains(&why)))
    });
    let (status, said) = node.admin("/readyz");
    assert_eq!(status, 503);
    assert!(said.contains(&why), "{said}");
    let note = node.wait_for_event_here("SidestepNotReady");
    assert!(note.contains(&why), "{note}");
}
