//! What the kernel shows of what is pinned.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::net::run;

/// What bpftool answers of this path.
pub fn show(words: &[&str], path: &Path) -> Value {
    let shown = run(Command::new("bpftool").arg("-j").args(words).arg(path));
    serde_json::from_slice(&shown.stdout).expect("bpftool writes JSON")
}

/// The id of a pinned link's program.
pub fn program_of(link: &Path) -> u64 {
    let link = show(&["link", "show", "pinned"], link);
    link["prog_id"].as_u64().expect("a link's program")
}

/// The programs on a cgroup. Of one without any bpftool says nothing at all.
pub fn attached(cgroup: &Path) -> Vec<Value> {
    let shown = run(Command::new("bpftool")
        .args(["-j", "cgroup", "show"])
        .arg(cgroup));
    if shown.stdout.trim_ascii().is_empty() {
        return Vec::new();
    }
    serde_json::from_slice(&shown.stdout).expect("bpftool writes a list as JSON")
}

/// The entries of a pinned map.
pub fn dump(map: &Path) -> Vec<Value> {
    let dump = show(&["map", "dump", "pinned"], map);
    dump.as_array().expect("a list").clone()
}
