//! Pods with users of their own (`hostUsers: false`): the ids in their policies are not the node's.

use std::{fs, process::Command};

use serde_json::json;
use sidestep_kit::{
    actor::{Identity, assert_captured},
    kubelet::{Driver, KubeNode, PATIENCE, Sandbox, pod},
    needs,
    net::Namespace,
    process::{Running, eventually},
    redirect::{PodState, SERVICE},
};

/// The first of the pod's ids on the node.
const FIRST: u32 = 655_360;

/// The pod's users, as the node numbers them.
fn on_node(id: u32) -> Identity {
    Identity::new(FIRST + id, FIRST + id)
}

/// A process in a user namespace of its own and in a network namespace that this one owns, as a runtime starts a sandbox.
fn sandbox_process() -> Running {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--net", "sleep", "infinity"]);
    let mut process = Running::start(&mut unshare);
    let pid = process.child().id();
    let user = |process: &str| fs::read_link(format!("/proc/{process}/ns/user")).ok();
    let own = user("self");
    assert!(
        eventually(PATIENCE, || user(&pid.to_string())
            .is_some_and(|it| Some(it) != own)),
        "it has no user namespace of its own"
    );
    for map in ["uid_map", "gid_map"] {
        let file = format!("/proc/{pid}/{map}");
        fs::write(&file, format!("0 {FIRST} 65536")).unwrap_or_else(|e| panic!("{file}: {e}"));
    }
    process
}

#[needs(apiserver, "unshare")]
fn a_pod_with_users_of_its_own_is_captured_by_their_ids_on_the_node() {
    let node = KubeNode::without_agent(Driver::Cgroupfs);
    node.start_agent();
    let mut manifest = pod("web", &node.name, "");
    manifest["spec"]["hostUsers"] = json!(false);
    let pod = node.create_as("web", &manifest);
    let mut process = sandbox_process();
    let namespace = Namespace::of_process("users", process.child().id());
    node.base().network().attach(&namespace, &["10.77.0.10"]);
    let cgroup = pod.cgroup();
    cgroup.join(process.child().id());
    let sandbox = Sandbox::start(cgroup, namespace);
    node.wait_for("web", PodState::Armed);

    let _proxy = sandbox.proxy_of(&on_node(1337));
    node.wait_for("web", PodState::Active);
    assert_captured(&sandbox.container(&on_node(1000)), "outbound", SERVICE);
    assert_captured(&node.base().outside(), "inbound", "10.77.0.10:8080");
    let proxys = sandbox.container(&on_node(1337)).call(SERVICE);
    assert!(proxys.is_err(), "the proxy called itself");
    // On the node this is another user.
    assert_captured(&sandbox.container(&Identity::proxy()), "outbound", SERVICE);
}
