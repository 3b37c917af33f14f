//! An agent that cannot read what is in the kernel, because it may open no more files: it learns nothing, and so it takes
//! nothing away.

use std::{
    fs::File,
    io::Read,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use sidestep_kit::{needs, redirect::Node};

use crate::{SERVICE, assert_captured};

const PATIENCE: Duration = Duration::from_secs(30);
/// With so many every agent starts.
const ENOUGH: u32 = 256;
/// Descriptors that differ between a start that fails where it opens the pods' links, and one that does not.
const NEAR: u32 = 8;

#[needs(root, "prlimit")]
fn an_agent_that_may_open_too_few_files_leaves_every_pod_captured() {
    let mut node = Node::alone_with(&["--shortcut=off"]);
    let pods = ["10.77.0.11", "10.77.0.12", "10.77.0.13"].map(|address| {
        let pod = node.pod_with_proxy("client", &[address]);
        (pod, address)
    });
    node.take_agent().kill();
    let links = node.pinned("pods");
    assert_eq!(links.len(), pods.len());

    let (mut too_few, mut enough) = (8, ENOUGH);
    assert!(starts_with(&node, enough));
    while enough - too_few > 1 {
        let between = u32::midpoint(too_few, enough);
        if starts_with(&node, between) {
            enough = between;
        } else {
            too_few = between;
        }
    }
    for files in too_few.saturating_sub(NEAR)..=too_few {
        assert!(!starts_with(&node, files), "{files} files");
        assert_eq!(
            node.pinned("pods"),
            links,
            "after a start with {files} files"
        );
    }
    for ((pod, _proxy), address) in &pods {
        assert_captured(&pod.app(), "outbound", SERVICE);
        assert_captured(&node.outside(), "inbound", &format!("{address}:8080"));
    }
    // An agent that is given too few, as runtimes do, and may have more takes them.
    assert!(starts(&node, too_few - NEAR, ENOUGH));
    node.start_agent();
    for ((pod, _proxy), _) in &pods {
        node.wait_active(pod);
    }
}

fn starts_with(node: &Node, files: u32) -> bool {
    starts(node, files, files)
}

/// Whether an agent with these limits of open files comes to be ready. It is killed then.
fn starts(node: &Node, soft: u32, hard: u32) -> bool {
    let log = tempfile::NamedTempFile::new().expect("a temporary file");
    let agent = node.folders().command();
    let mut limited = Command::new("prlimit");
    limited
        .arg(format!("--nofile={soft}:{hard}"))
        .arg(agent.get_program())
        .args(agent.get_args())
        .stderr(Stdio::from(log.reopen().expect("a file of ours")))
        .stdout(Stdio::null());
    let mut child = limited.spawn().expect("prlimit is installed");
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            assert!(!status.success(), "it ended well with {soft}:{hard} files");
            return false;
        }
        if written(log.path()).contains("ready") {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
            return true;
        }
        assert!(Instant::now() < deadline, "{}", written(log.path()));
        thread::sleep(Duration::from_millis(2));
    }
}

fn written(log: &std::path::Path) -> String {
    let mut text = String::new();
    let mut file = File::open(log).expect("a file of ours");
    file.read_to_string(&mut text).expect("text");
    text
}
