//! Pins that somebody else owns: an agent of other pods, or one that reaches the same folder by another path.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::{Command, Output},
};

use sidestep_kernel::cgroups::{self, Whereabouts};
use sidestep_kit::{cgroup::Cgroup, needs, net::run, redirect::Node};

use crate::{POD, SERVICE, assert_captured};

#[needs(root, "timeout")]
fn links_of_another_living_cgroup_stay_attached_and_the_agent_names_both() {
    let mut node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    node.take_agent().kill();
    let links = node.pinned("links");
    assert!(!links.is_empty());

    let other = node.cgroup().child("other");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let refused = start(&node, other.path(), &node.folders().pins(), folder.path());
    let pods = node.pods().path().to_string_lossy();
    let other = other.path().to_string_lossy();
    for words in [&*pods, &*other, "--pin"] {
        assert!(refused.contains(words), "no {words:?} in: {refused}");
    }
    assert_eq!(node.pinned("links"), links);
    assert_captured(&pod.app(), "outbound", SERVICE);
    assert_captured(&node.outside(), "inbound", &format!("{POD}:8080"));

    // The rightful one takes them over.
    node.start_agent();
    node.wait_active(&pod);
}

#[needs(root)]
fn links_of_a_cgroup_that_is_gone_are_replaced() {
    let mut node = Node::alone();
    node.take_agent().kill();
    // Another cgroup takes its place at once, before the kernel has let go of the links.
    node.pods().remake();
    node.start_agent();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    assert_captured(&pod.app(), "outbound", SERVICE);
}

/// Kubelet leaves the old ones where it changes its cgroup driver.
#[needs(root)]
fn a_cgroup_in_which_nobody_is_owns_nothing() {
    let cgroup = Cgroup::new("owner");
    let below = cgroup.child("pod");
    let id = fs::metadata(cgroup.path()).expect("it is there").ino();
    assert_eq!(cgroups::find(id, cgroup.path()), Whereabouts::Empty);
    let mut sleeper = Command::new("sleep");
    below.command_joins(sleeper.arg("60"));
    let mut sleeper = sleeper.spawn().expect("a program of every system");
    let here = cgroups::find(id, below.path());
    sleeper.kill().expect("our own child");
    sleeper.wait().expect("our own child");
    assert_eq!(here, Whereabouts::Here(cgroup.path().to_owned()));
}

#[needs(root, "mount", "umount", "timeout")]
fn two_agents_do_not_own_one_folder_of_pins_under_two_paths() {
    let node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let other = node.cgroup().child("other");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bpffs = folder.path().join("bpf");
    fs::create_dir(&bpffs).expect("a folder of ours");
    let pins = node.folders().pins();
    let mounted = Mounted::bind(pins.parent().expect("a mount point"), &bpffs);

    let alias = bpffs.join("sidestep");
    let refused = start(&node, other.path(), &alias, folder.path());
    let owner = format!("another agent (process {})", node.agent().pid());
    for words in [owner.as_str(), "the pins", &alias.to_string_lossy()] {
        assert!(refused.contains(words), "no {words:?} in: {refused}");
    }
    assert_captured(&pod.app(), "outbound", SERVICE);

    // Somebody removes the folder, and the agent makes it anew.
    fs::remove_dir_all(&pins).expect("a folder of pins");
    let is_back = || !node.pinned("links").is_empty();
    node.agent().wait("the pins to be back", is_back);
    let refused = start(&node, other.path(), &alias, folder.path());
    assert!(refused.contains(&owner), "{refused}");
    drop(mounted);
}

/// Starts an agent of other pods with these pins; what it says when it has ended by itself.
fn start(node: &Node, cgroup: &Path, pins: &Path, folder: &Path) -> String {
    let mut command = Command::new("timeout");
    command
        .arg("20")
        .arg(node.folders().command().get_program());
    command.arg("--cgroup").arg(cgroup).arg("--pin").arg(pins);
    command.arg("--pods").arg(node.folders().pods());
    command.arg("--socket").arg(folder.join("agent.sock"));
    let Output { status, stderr, .. } = command.output().expect("the agent starts");
    let message = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success(), "{status}: {message}");
    message
}

/// A folder that is seen in another place.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn bind(from: &Path, to: &'a Path) -> Self {
        run(Command::new("mount").arg("--bind").arg(from).arg(to));
        Self(to)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        run(Command::new("umount").arg(self.0));
    }
}
