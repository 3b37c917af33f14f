//! What the kernel shows of what is pinned.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::net::run;

/// What bpftool answers of this path.
pub fn show(words: &[&str], path: &Path) -> Value {
    let shown = run(Command::new("bpftool").arg("-j").args(words).arg(path));
    serde_json::from_slice(&shown.stdout).expect("bpftool writes JSON")
}

/// The entries of a pinned map.
pub fn dump(map: &Path) -> Vec<Value> {
    let dump = show(&["map", "dump", "pinned"], map);
    dump.as_array().expect("a list").clone()
}
