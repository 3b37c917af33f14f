//! What a proxy accepts starts with a copy of its listener's state. Where the kernel has no memory for that it drops the
//! connection (`sk_clone_lock`), and counts it in `ListenDrops`: since Linux 7.1 it tries locks only, and might.

use std::{collections::BTreeMap, fs};

use sidestep_kit::{
    needs,
    redirect::{Node, POD, Pod, SERVICE},
};

use crate::agent::{counted, programmed};

/// Connections that are made and shortcut.
const MANY: u64 = 3000;

/// Connections that listeners of a pod dropped though there was room for them.
fn dropped(pod: &Pod) -> u64 {
    let read = || fs::read_to_string("/proc/thread-self/net/netstat");
    let netstat = pod.namespace().enter(read).expect("the pod's counters");
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let words = |line: Option<&str>| -> Vec<String> {
        let line = line.expect("two lines: names and values");
        line.split_whitespace().map(str::to_owned).collect()
    };
    let (names, values) = (words(lines.next()), words(lines.next()));
    let value = |name: &str| -> u64 {
        let at = names.iter().position(|found| found == name);
        values[at.expect("a counter of every kernel's")]
            .parse()
            .expect("a number")
    };
    value("ListenDrops") - value("ListenOverflows")
}

#[needs(root)]
fn no_accepted_connection_is_dropped_for_want_of_storage() {
    let node = Node::alone();
    let pod = programmed(&node, POD, "pod");
    let _proxy = pod.proxy();
    node.wait_active(&pod);
    let app = pod.app();
    let before = counted(&node, "ends");
    app.start_load(SERVICE, 4, 0);
    // Both of its ends.
    node.agent()
        .wait("connections", || counted(&node, "ends") > before + 2 * MANY);
    let load = app.stop_load();
    let without = counted(&node, "no-storage");
    println!(
        "{} answers, {} dropped, {without} left to TCP for want of storage",
        load.answered.values().sum::<u64>(),
        dropped(&pod)
    );
    assert_eq!(load.failed, BTreeMap::new());
    assert_eq!(dropped(&pod), 0);
}
