//! Nothing is left: not of connections that ended, nor of an agent that ended in order.

use std::{fs, path::Path, process::Command};

use sidestep_kit::{
    actor::{Errno, Family, Kind},
    bpftool, needs,
    redirect::{Node, Pod},
};

use crate::{POD, SERVICE, assert_captured, assert_straight};

#[needs(root)]
fn thirty_thousand_connections_leave_no_entry() {
    let node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let services: Vec<_> = (1..=100).map(|n| format!("10.96.0.{n}:80")).collect();
    let load = pod.app().connect_many(&services, 30_000);
    assert!(load.failed.is_empty(), "{load:?}");
    assert_eq!(load.answered.get("outbound"), Some(&30_000), "{load:?}");
    assert_no_flows(&node, &pod);
}

#[needs(root)]
fn connections_that_failed_leave_no_entry() {
    let node = Node::alone();
    let (pod, proxy) = node.pod_with_proxy("client", &[POD]);
    proxy.kill();
    let app = pod.app();
    for _ in 0..100 {
        assert_eq!(app.call(SERVICE).err(), Some(Errno::REFUSED));
        let socket = app.socket(Family::V4, Kind::Mptcp).expect("a socket");
        assert_eq!(socket.connect(SERVICE), Err(Errno::REFUSED));
    }
    assert_no_flows(&node, &pod);
}

#[needs(root)]
fn open_connections_keep_their_entries_and_each_way_to_end_removes_them() {
    let node = Node::alone();
    let (pod, proxy) = node.pod_with_proxy("client", &[POD]);
    let app = pod.app();
    let mut open: Vec<_> = (0..6)
        .map(|_| app.connect(SERVICE).expect("the proxy listens"))
        .collect();
    let all_known = || flows(&node, &pod) == Some(6);
    node.agent().wait("all connections to be known", all_known);

    open.pop().expect("an open connection").close();
    open.pop().expect("an open connection").reset();
    open.pop()
        .expect("an open connection")
        .disconnect()
        .expect("a connected socket");
    proxy.kill();
    drop(open);
    assert_no_flows(&node, &pod);
}

#[needs(root)]
fn a_process_that_is_killed_leaves_no_entry() {
    let node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let app = pod.app();
    let open: Vec<_> = (0..20)
        .map(|_| app.connect(SERVICE).expect("the proxy listens"))
        .collect();
    node.agent().wait("all connections to be known", || {
        flows(&node, &pod) == Some(open.len() as u64)
    });
    app.kill();
    assert_no_flows(&node, &pod);
}

#[needs(root, "bpftool")]
fn a_clean_exit_leaves_nothing_behind() {
    let mut node = Node::alone();
    let outside = node.outside();
    let _service = outside.serve("service", Kind::Tcp, "0.0.0.0:80");
    let (pod, _proxy) = node.pod_with_proxy("dual-stack", &[POD, "fd77::10"]);
    assert_captured(&pod.app(), "outbound", SERVICE);
    let pins = node.folders().pins();
    let maps = objects("map", &pins);
    let links = objects("link", &pins);
    assert!(!maps.is_empty() && !links.is_empty(), "{maps:?} {links:?}");

    let agent = node.take_agent();
    let log = agent.log();
    let status = agent.stop();
    assert!(status.success(), "{status}: {log}");
    assert!(!pins.exists(), "{} is left", pins.display());
    let attached = bpftool::attached(node.pods().path());
    assert!(attached.is_empty(), "{attached:?}");
    for (kind, ids) in [("map", maps), ("link", links)] {
        wait_until_gone(kind, &ids);
    }
    assert_straight(
        &pod.app(),
        "service",
        &format!("{}:80", sidestep_kit::net::OUTSIDE_V4),
    );
}

#[needs(root, "bpftool")]
fn pods_that_went_leave_no_entry_in_any_map() {
    let mut node = Node::alone();
    let (one, _proxy) = node.pod_with_proxy("include", &["10.77.0.11"]);
    let (other, _other_proxy) = node.pod_with_proxy("owner-groups", &["10.77.0.12"]);
    assert!(entries(&node) > 10);
    node.remove_pod_file(&one);
    node.agent()
        .wait("the pod to go", || node.agent().pod(one.name()).is_none());
    // The other's goes while nobody looks.
    node.take_agent().kill();
    node.remove_pod_file(&other);
    node.start_agent();
    node.agent()
        .wait("all entries to go", || entries(&node) == 0);
}

/// Entries of all the maps that a pod has entries in.
fn entries(node: &Node) -> usize {
    node.entries(&[
        "PODS", "PROXIES", "COUNTS", "PORTS", "ADDRS", "GROUPS", "FLOWS", "OPEN",
    ])
}

#[needs(root)]
fn open_connections_outlive_a_clean_exit() {
    let mut node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let socket = pod.app().connect(SERVICE).expect("the proxy listens");
    socket.report().expect("the proxy answers");
    assert!(node.take_agent().stop().success());
    socket.send(b"still here").expect("an open connection");
    assert_eq!(socket.receive(), Ok(b"still here".to_vec()));
}

fn assert_no_flows(node: &Node, pod: &Pod) {
    let all_gone = || flows(node, pod) == Some(0);
    node.agent().wait("all entries to be gone", all_gone);
}

fn flows(node: &Node, pod: &Pod) -> Option<u64> {
    node.agent().pod(pod.name()).map(|status| status.flows)
}

/// The ids of the pinned objects of a kind, in a folder and those below.
fn objects(kind: &str, folder: &Path) -> Vec<u64> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the agent's pins").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(objects(kind, &path));
            continue;
        }
        let shown = Command::new("bpftool")
            .args(["-j", kind, "show", "pinned"])
            .arg(&path)
            .output()
            .expect("bpftool is installed");
        if let Ok(object) = serde_json::from_slice::<serde_json::Value>(&shown.stdout) {
            found.extend(object["id"].as_u64());
        }
    }
    found
}

/// The kernel frees them a little later.
fn wait_until_gone(kind: &str, ids: &[u64]) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    for id in ids {
        while Command::new("bpftool")
            .args([kind, "show", "id", &id.to_string()])
            .output()
            .expect("bpftool is installed")
            .status
            .success()
        {
            assert!(std::time::Instant::now() < deadline, "{kind} {id} is left");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
