//! Pods with more of everything than is good for a node: how much the agent looks at is not theirs to choose.

use std::{
    fs::{self, File},
    path::Path,
};

use sidestep_kit::{
    actor::assert_captured,
    cgroup::Cgroup,
    kubelet::{Driver, KubeNode, PATIENCE, Sandbox},
    needs,
    net::Namespace,
    process::{Program, Running, eventually},
    redirect::{PodState, SERVICE},
};

/// More than the agent looks at of one pod.
const CROWD: usize = 700;

/// A container of this many processes. They end with its cgroup.
fn crowd(container: &Cgroup, namespace: &Namespace) -> Running {
    let script = format!("for n in $(seq {CROWD}); do sleep 1000 & done; wait");
    let program = Program::new(Path::new("/bin/sh"), namespace, container, (1000, 1000));
    let running = program.args(["-c", &script]).start();
    let procs = container.path().join("cgroup.procs");
    let all = || fs::read_to_string(&procs).is_ok_and(|text| text.lines().count() > CROWD);
    assert!(eventually(PATIENCE, all), "the crowd does not come");
    running
}

/// An honest pod: its proxy listened before the agent came, and its sockets are found among all the others.
#[needs(apiserver)]
fn a_pod_of_many_processes_is_taken_over_with_its_proxy() {
    let node = KubeNode::without_agent(Driver::Cgroupfs);
    let pod = node.create("web", "");
    let sandbox = pod.sandbox("10.77.0.10");
    let crowds = ["a", "b", "c"].map(|name| sandbox.cgroup().child(name));
    let _running = crowds
        .each_ref()
        .map(|container| crowd(container, sandbox.namespace()));
    let _proxy = sandbox.proxy();
    node.start_agent();
    node.wait_for("web", PodState::Active);
    assert_captured(&sandbox.app(), "outbound", SERVICE);
    assert_captured(&node.base().outside(), "inbound", "10.77.0.10:8080");
}

/// Wherever the kernel lists the containers: some of these stand before the sandbox's.
#[needs(apiserver)]
fn a_crowd_in_a_namespace_of_its_own_is_not_taken_for_the_sandbox() {
    let mut node = KubeNode::with_agent();
    let pod = node.create("web", "");
    let sandbox = pod.sandbox("10.77.0.10");
    let cookie = node.wait_for("web", PodState::Armed).cookie;
    let nested = Namespace::new("nested");
    let crowds = ["a", "b", "c"].map(|name| sandbox.cgroup().child(name));
    let _running = crowds.each_ref().map(|container| crowd(container, &nested));
    // Whoever looks for the first time, too.
    assert!(node.take_agent().stop().success());
    node.start_agent();
    let _proxy = sandbox.proxy();
    assert_eq!(node.wait_for("web", PodState::Active).cookie, cookie);
    assert_captured(&sandbox.app(), "outbound", SERVICE);
}

/// `unshare` in a loop, as anybody may do in a pod whose seccomp profile allows it.
#[needs(apiserver)]
fn a_pod_that_makes_namespaces_without_end_holds_up_no_other() {
    let node = KubeNode::with_agent();
    let hostile = node.create("hostile", "");
    let sandbox = hostile.sandbox("10.77.0.10");
    let cookie = node.wait_for("hostile", PodState::Armed).cookie;
    let waiting: Vec<_> = (0..20)
        .map(|n| node.create(&format!("waits-{n}"), ""))
        .collect();
    node.wait_for("waits-19", PodState::Pending);
    let before = memory(node.agent().pid());

    let container = sandbox.cgroup().child("loop");
    let _loop = flood(&container, &sandbox);
    let seen = || node.metric("sidestep_agent_sightings_total{seen=\"exec\"}");
    let flooded = |many: f64| {
        let patience = PATIENCE * 6;
        let seen_many = eventually(patience, || seen() >= many);
        assert!(seen_many, "only {} namespaces were seen", seen());
    };
    flooded(500.0);
    for (n, pod) in waiting.iter().take(10).enumerate() {
        let sandbox = pod.sandbox(&format!("10.77.0.{}", 20 + n));
        let armed = node.wait_for(&pod.name, PodState::Armed);
        let reaction = armed.reaction_us.expect("its start was seen");
        assert!(reaction < 1_000_000, "{reaction} µs");
        drop(sandbox);
    }
    flooded(2000.0);
    let grown = memory(node.agent().pid()).saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more");
    let hostile = node.agent().pod("hostile").expect("a pod");
    assert_eq!(hostile.cookie, cookie);
    let _proxy = sandbox.proxy();
    node.wait_for("hostile", PodState::Active);
    assert_captured(&sandbox.app(), "outbound", SERVICE);
}

/// More than the kernel keeps for an agent that has no time to listen: whose start was among them waits for no sweep.
#[needs(apiserver)]
fn a_pod_whose_start_was_lost_is_found_all_the_same() {
    let node = KubeNode::with_agent();
    let hostile = node.create("hostile", "");
    let sandbox = hostile.sandbox("10.77.0.10");
    node.wait_for("hostile", PodState::Armed);
    let web = node.create("web", "");
    node.wait_for("web", PodState::Pending);
    let container = sandbox.cgroup().child("loop");

    node.agent().freeze();
    let rounds = tempfile::NamedTempFile::new().expect("a file");
    let running = flood_told(&container, &sandbox, rounds.reopen().expect("a file"));
    let enough = || rounds.path().metadata().is_ok_and(|file| file.len() > 700);
    assert!(eventually(PATIENCE * 6, enough), "no flood");
    let _web = web.sandbox("10.77.0.11");
    drop((running, container));
    node.agent().thaw();
    node.wait_for("web", PodState::Armed);
    node.wait_for_metric("sidestep_agent_sightings_lost_total", 1.0..);
}

/// Namespaces without end, until the container is removed.
fn flood(container: &Cgroup, sandbox: &Sandbox) -> Running {
    let nowhere = File::create("/dev/null").expect("it is there");
    flood_told(container, sandbox, nowhere)
}

/// The same; for each three a byte is written.
fn flood_told(container: &Cgroup, sandbox: &Sandbox, to: File) -> Running {
    let script = "while :; do unshare -n true & unshare -n true & unshare -n true; echo; done";
    let shell = Path::new("/bin/sh");
    let mut program = Program::new(shell, sandbox.namespace(), container, (0, 0));
    program.command().stdout(to);
    program.args(["-c", script]).start()
}

/// What a process has in memory, KiB.
fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let words = line.and_then(|line| line.split_whitespace().next());
    words.and_then(|word| word.parse().ok()).expect("a number")
}
