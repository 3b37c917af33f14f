//! What the agent may do in its container, and what fails without each of it.

use std::fs;

use sidestep_agent::preflight::capabilities::NEEDED;
use sidestep_kit::{
    actor::assert_captured,
    binary,
    kubelet::{Driver, KubeNode, Sandbox},
    needs,
    process::{Program, Running},
    redirect::{PodState, SERVICE, Status},
};

/// As the chart gives them.
const CAPABILITIES: [&str; 4] = ["dac_read_search", "net_admin", "sys_ptrace", "sys_admin"];

fn set(capabilities: impl Iterator<Item = &'static str>) -> String {
    capabilities.fold("-all".to_owned(), |set, name| format!("{set},+{name}"))
}

#[needs(apiserver)]
fn an_agent_with_the_charts_capabilities_does_everything() {
    let mut node = KubeNode::without_agent(Driver::Cgroupfs);
    node.capabilities = Some(set(CAPABILITIES.into_iter()));
    let pod = node.create("late", "--redirect-dns");
    let sandbox = pod.sandbox("10.77.0.10");
    // Its sockets have to be taken from another user's process.
    let _programs = proxy_of_another_user(&sandbox);
    node.start_agent();
    node.wait_for("late", PodState::Active);

    let pod = node.create("early", "--dual-stack");
    let sandbox = pod.sandbox("10.77.0.11");
    node.wait_for("early", PodState::Armed);
    let _proxy = sandbox.proxy();
    node.wait_for("early", PodState::Active);
    assert_captured(&sandbox.app(), "outbound", SERVICE);
}

#[needs(apiserver)]
fn without_any_of_them_the_agent_is_not_ready_and_names_it() {
    let all: Vec<_> = NEEDED.iter().map(|one| one.name.to_lowercase()).collect();
    assert_eq!(all, CAPABILITIES.map(|name| format!("cap_{name}")));
    for missing in CAPABILITIES {
        let mut node = KubeNode::without_agent(Driver::Cgroupfs);
        let others = CAPABILITIES.into_iter().filter(|name| *name != missing);
        node.capabilities = Some(set(others));
        let agent = node.launch_agent();
        let name = format!("CAP_{} is missing", missing.to_uppercase());
        agent.wait(&name, || {
            let errors = agent
                .status()
                .map(|status| status.errors)
                .unwrap_or_default();
            errors.iter().any(|error| error.contains(&name))
        });
    }
}

/// What an agent says of itself that tries without one of them; with a pod whose proxy listens already, as another user.
fn tried_without(missing: &'static str, said: impl Fn(&Status) -> bool) {
    assert!(CAPABILITIES.contains(&missing));
    let others = || CAPABILITIES.into_iter().filter(|name| *name != missing);
    let mut node = KubeNode::without_agent(Driver::Cgroupfs);
    node.capabilities = Some(set(others()));
    // The agent reads there what it may do, and believes it.
    let everything = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(everything.path(), "CapEff:\t000001ffffffffff\n").expect("a file of ours");
    let mount = format!(
        "mount --bind {} /proc/$$/status",
        everything.path().display()
    );
    node.disguise = Some(mount);
    let pod = node.create("late", "");
    let sandbox = pod.sandbox("10.77.0.10");
    let _programs = proxy_of_another_user(&sandbox);
    let agent = node.launch_agent();
    let what = format!("what fails without {missing}");
    agent.wait(&what, || agent.status().is_some_and(|status| said(&status)));
}

fn says(texts: &[String], words: &str) -> bool {
    texts.iter().any(|text| text.contains(words))
}

fn pending_for(status: &Status, words: &str) -> bool {
    let pod = status.pods.iter().find(|pod| pod.name == "late");
    let reason = pod.and_then(|pod| pod.reason.as_deref());
    status.ready && reason.is_some_and(|reason| reason.contains(words))
}

#[needs(apiserver, "setpriv", "unshare", "mount")]
fn without_sys_admin_no_map_is_made() {
    tried_without("sys_admin", |status| {
        says(&status.errors, "failed to create map")
            && says(&status.errors, "Operation not permitted")
    });
}

#[needs(apiserver, "setpriv", "unshare", "mount")]
fn without_net_admin_no_loopback_device_can_be_changed() {
    tried_without("net_admin", |status| {
        says(&status.errors, "raising the loopback device")
            && says(&status.errors, "Operation not permitted")
    });
}

#[needs(apiserver, "setpriv", "unshare", "mount")]
fn without_sys_ptrace_no_namespace_of_a_pod_is_found() {
    tried_without("sys_ptrace", |status| {
        pending_for(status, "none of its processes")
    });
}

#[needs(apiserver, "setpriv", "unshare", "mount")]
fn without_dac_read_search_a_proxys_sockets_are_not_found() {
    tried_without("dac_read_search", |status| {
        pending_for(status, "cannot be duplicated")
    });
}

/// As a runtime starts it: it never was anybody else, so its files in /proc are its own.
fn proxy_of_another_user(sandbox: &Sandbox) -> [Running; 2] {
    let program = binary("sidestep-app");
    ["0.0.0.0:15001", "0.0.0.0:15006"].map(|address| {
        let ids = (1337, 1337);
        Program::new(&program, sandbox.namespace(), sandbox.cgroup(), ids)
            .args(["serve", "--pod=proxy", "--listen", address])
            .start()
    })
}
