//! What others take out of the kernel is put back, and said.

use std::{fs, process::Command};

use sidestep_tests::{actor::Kind, can_run, net::run, redirect::Node};

use crate::{POD, SERVICE, assert_captured};

#[test]
fn a_link_that_somebody_detached_is_restored_and_reported() {
    if !can_run(&["bpftool"]) {
        return;
    }
    let node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let app = pod.app();
    let _listener = app.serve("app", Kind::Tcp, "0.0.0.0:8080");
    let shown = run(Command::new("bpftool").args(["-j", "link", "show"]));
    let links: Vec<serde_json::Value> =
        serde_json::from_slice(&shown.stdout).expect("bpftool prints JSON");
    let cgroup = fs::metadata(node.pods().path())
        .map(|metadata| std::os::unix::fs::MetadataExt::ino(&metadata));
    let ours: Vec<_> = links
        .iter()
        .filter(|link| link["cgroup_id"].as_u64() == cgroup.as_ref().ok().copied())
        .filter_map(|link| link["id"].as_u64())
        .collect();
    assert!(!ours.is_empty(), "{links:?}");
    for id in ours {
        run(Command::new("bpftool").args(["link", "detach", "id", &id.to_string()]));
    }
    node.agent().wait("the hooks to be back", || {
        app.call(SERVICE)
            .is_ok_and(|seen| seen.by == "outbound" && seen.original.is_ok())
    });
    assert_captured(&node.outside(), "inbound", &format!("{POD}:8080"));
    let repairs = node.agent().status().expect("an answer").repairs;
    assert!(!repairs.is_empty());
}

#[test]
fn a_pin_that_somebody_removed_is_restored() {
    if !can_run(&[]) {
        return;
    }
    let node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let pins = files(&node.folders().pins());
    assert!(!pins.is_empty());
    for pin in &pins {
        fs::remove_file(pin).expect("a pin");
    }
    node.agent().wait("the pins to be back", || {
        pins.iter().all(|pin| pin.exists())
    });
    assert_captured(&pod.app(), "outbound", SERVICE);
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).expect("the agent's pins").flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}
