//! How many captured connections the programs count as open.

use std::{path::PathBuf, process::Command};

use super::Node;
use crate::net::run;

/// The programs' count of a pod's open connections.
#[derive(Debug)]
pub struct OpenCount {
    map: PathBuf,
    cookie: u64,
}

impl OpenCount {
    /// Of the pod in the namespace of this cookie, which is armed.
    pub fn of(node: &Node, cookie: u64) -> Self {
        let mut maps = node.pinned("maps").into_iter();
        let map = maps.find(|path| path.ends_with("OPEN"));
        Self {
            map: map.expect("a pinned map"),
            cookie,
        }
    }

    /// Reads it.
    pub fn get(&self) -> i64 {
        let found = run(&mut self.bpftool("lookup"));
        let found: serde_json::Value = serde_json::from_slice(&found.stdout).expect("JSON");
        let bytes = found["value"].as_array().expect("bytes").iter();
        let bytes = bytes.filter_map(|byte| byte.as_str()?.strip_prefix("0x"));
        let bytes: Vec<u8> = bytes
            .filter_map(|byte| u8::from_str_radix(byte, 16).ok())
            .collect();
        i64::from_ne_bytes(bytes.try_into().expect("eight bytes"))
    }

    /// Lets the programs go on from there.
    pub fn set(&self, count: i64) {
        run(self
            .bpftool("update")
            .arg("value")
            .args(bytes(count.to_ne_bytes())));
    }

    fn bpftool(&self, what: &str) -> Command {
        let mut command = Command::new("bpftool");
        command
            .args(["-j", "map", what, "pinned"])
            .arg(&self.map)
            .arg("key")
            .args(bytes(self.cookie.to_ne_bytes()));
        command
    }
}

fn bytes(bytes: [u8; 8]) -> [String; 8] {
    bytes.map(|byte| byte.to_string())
}
