//! What others take out of the kernel is put back, and said.

use std::{fs, process::Command};

use sidestep_kit::{
    actor::Kind,
    needs,
    net::run,
    redirect::{Node, Status},
};

use crate::{POD, SERVICE, assert_captured};

#[needs(root, "bpftool")]
fn a_link_that_somebody_detached_is_restored_and_reported() {
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

#[needs(root)]
fn a_pin_that_somebody_removed_is_restored() {
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

#[needs(root)]
fn a_pin_folder_that_somebody_removed_is_made_again_and_the_next_agent_finds_everything() {
    let mut node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let pins = files(&node.folders().pins());
    fs::remove_dir_all(node.folders().pins()).expect("a folder of pins");
    node.agent().wait("the pins to be back", || {
        pins.iter().all(|pin| pin.exists())
    });
    // Everybody is armed as before.
    let (other, _other_proxy) = node.pod_with_proxy("client", &["10.77.0.11"]);
    node.agent().wait_until_ready();

    node.take_agent().kill();
    assert_captured(&node.outside(), "inbound", &format!("{POD}:8080"));
    node.start_agent();
    for pod in [&pod, &other] {
        node.wait_active(pod);
        assert_captured(&pod.app(), "outbound", SERVICE);
    }
}

#[needs(root, "mount", "umount")]
fn a_bpffs_that_is_mounted_anew_gets_every_pin_again() {
    let mut node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let pins = files(&node.folders().pins());
    let (other, _other_proxy) = node.pod_with_proxy("client", &["10.77.0.11"]);
    let folder = node.folders().pins();
    let bpffs = folder.parent().expect("a mount point");
    run(Command::new("umount").arg(bpffs));
    let complains = |status: &Status| {
        let errors = status.errors.join("\n");
        errors.contains("is not on a bpffs any more") && errors.contains("mount -t bpf")
    };
    node.agent().wait("the agent to say so", || {
        let status = node.agent().status();
        status.is_some_and(|status| !status.ready && complains(&status))
    });
    assert_captured(&pod.app(), "outbound", SERVICE);
    // It stops nothing else: a pod that is not wanted any more is let go meanwhile.
    node.remove_pod_file(&other);
    node.agent().wait("the other pod to be free", || {
        node.outside().call("10.77.0.11:8080").is_err()
    });

    run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(bpffs));
    node.agent().wait_until_ready();
    assert!(pins.iter().all(|pin| pin.exists()), "{pins:?}");
    node.take_agent().kill();
    assert_captured(&pod.app(), "outbound", SERVICE);
    assert_captured(&node.outside(), "inbound", &format!("{POD}:8080"));
    node.start_agent();
    node.wait_active(&pod);
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
