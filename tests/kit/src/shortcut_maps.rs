//! What agents keep of the shortcut: folders of pins beside their own, and what pods have in the maps there.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::bpftool::dump;

/// The maps in which pods and their sockets have entries.
const HASHES: [&str; 3] = ["MEMBERS", "ADDRESSES", "ENDS"];

/// Arrays with an element for each place that a pod can have, and the bytes of it that are zero where no pod has it. A
/// switch remembers whose it was.
const ARRAYS: [(&str, std::ops::Range<usize>); 2] =
    [("SWITCHES", 8..12), ("PROXY_PROCESSES", 0..4)];

/// The folders of the shortcut, of whatever version, of an agent with this folder of pins.
pub fn folders(pins: &Path) -> Vec<PathBuf> {
    let name = pins.file_name().and_then(|name| name.to_str());
    let prefix = format!("{}-shortcut-v", name.expect("a folder has a name"));
    let beside = pins.parent().map(fs::read_dir).into_iter().flatten();
    let beside = beside.flatten().flatten();
    beside
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect()
}

/// How many entries pods and their sockets have, by map; maps without any are left out.
pub fn entries(pins: &Path) -> BTreeMap<&'static str, usize> {
    let mut all = BTreeMap::new();
    for folder in folders(pins) {
        for map in HASHES {
            *all.entry(map).or_default() += dump(&folder.join(map)).len();
        }
        for (map, bytes) in ARRAYS {
            let elements = dump(&folder.join(map));
            let used = elements.iter().filter(|element| {
                let value = element["value"].as_array().expect("bytes");
                value[bytes.clone()].iter().any(|byte| byte != "0x00")
            });
            *all.entry(map).or_default() += used.count();
        }
    }
    all.retain(|_, count| *count > 0);
    all
}
