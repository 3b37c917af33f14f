//! What is held while only the pod that stays is there, and whether that grows.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sidestep_kit::{
    bpftool::attached,
    kubelet::{KubeNode, PATIENCE},
    process::eventually,
    shortcut_maps,
};

use crate::churn::Churn;

/// Maps in which only pods have entries; with them go all that they have there.
const MAPS: [&str; 7] = [
    "PODS", "PROXIES", "COUNTS", "PORTS", "ADDRS", "GROUPS", "OPEN",
];
/// Descriptors that an agent has open for a moment.
const FILES: usize = 8;
/// What an agent's memory may differ by, MiB. An allocator gives back what it likes.
const MEMORY: u64 = 16;

/// All of it.
#[derive(Debug)]
pub(crate) struct Held {
    maps: BTreeMap<String, usize>,
    pins: usize,
    programs: usize,
    files: usize,
    memory: u64,
    cgroups: usize,
    namespaces: usize,
}

impl Held {
    pub(crate) const HEAD: &str = "  time    pods  connections  streams  agents | memory  files  maps  pins  programs  cgroups  namespaces";

    pub(crate) fn by(node: &KubeNode) -> Self {
        let base = node.base();
        let pins = base.folders().pins();
        let of_pods = MAPS.map(|map| (map.to_owned(), base.entries(&[map])));
        let of_ends = shortcut_maps::entries(&pins).into_iter();
        // Ends come and go with connections.
        let of_ends = of_ends.filter(|(map, _)| *map != "ENDS");
        let process = format!("/proc/{}", node.agent().pid());
        Self {
            maps: of_pods
                .into_iter()
                .chain(of_ends.map(|(map, count)| (map.to_owned(), count)))
                .collect(),
            pins: pinned(&pins).len(),
            programs: attached(node.kubepods().path()).len(),
            files: entries(&format!("{process}/fd")),
            memory: memory(&process),
            cgroups: folders(base.cgroup().path()),
            namespaces: namespaces(),
        }
    }

    pub(crate) fn line(&self, since: Duration, churn: &Churn) -> String {
        let (minutes, seconds) = (since.as_secs() / 60, since.as_secs() % 60);
        format!(
            "{minutes:>3}:{seconds:02} {:>7} {:>12} {:>8} {:>7} | {:>3} MiB {:>5} {:>5} {:>5} {:>9} {:>8} {:>11}",
            churn.pods,
            churn.connections,
            churn.streams(),
            churn.agents,
            self.memory,
            self.files,
            self.maps.values().sum::<usize>(),
            self.pins,
            self.programs,
            self.cgroups,
            self.namespaces,
        )
    }
}

/// What there is more of than before.
pub(crate) fn leaks(before: &Held, after: &Held) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut more = |what: &str, before: u64, after: u64, room: u64| {
        if after > before + room {
            wrong.push(format!("{what}: {after} instead of {before}"));
        }
    };
    for (map, count) in &after.maps {
        let there = before.maps.get(map).copied().unwrap_or_default();
        more(&format!("entries of {map}"), there as u64, *count as u64, 0);
    }
    let counts = [
        ("pins", before.pins, after.pins, 0),
        ("attached programs", before.programs, after.programs, 0),
        ("open files", before.files, after.files, FILES),
        ("cgroups", before.cgroups, after.cgroups, 0),
        ("namespaces", before.namespaces, after.namespaces, 0),
    ];
    for (what, before, after, room) in counts {
        more(what, before as u64, after as u64, room as u64);
    }
    more("MiB of memory", before.memory, after.memory, MEMORY);
    wrong
}

/// What is left where the last pod and then the agent have ended.
pub(crate) fn of_an_end(mut node: KubeNode) -> Vec<String> {
    let mut wrong = Vec::new();
    node.known("busy").delete();
    let pins = node.base().folders().pins();
    let is_free = || node.inbound_links() == 0 && node.base().entries(&["FLOWS"]) == 0;
    if !eventually(PATIENCE * 6, is_free) {
        let (links, flows) = (node.inbound_links(), node.base().entries(&["FLOWS"]));
        wrong.push(format!("after the last pod: {links} links, {flows} flows"));
    }
    if !node.take_agent().stop().success() {
        wrong.push("the last agent failed as it ended".to_owned());
    }
    for pin in pinned(&pins) {
        wrong.push(format!("after the last agent: {}", pin.display()));
    }
    for program in attached(node.kubepods().path()) {
        wrong.push(format!("after the last agent: program {program}"));
    }
    wrong
}

/// What is pinned in an agent's folder, and in those of the shortcut beside it. The kernel has files of its own there.
fn pinned(pins: &Path) -> Vec<PathBuf> {
    let beside = shortcut_maps::folders(pins).into_iter();
    let folders = beside.chain([pins.to_owned()]);
    folders.flat_map(|folder| files(&folder)).collect()
}

/// Files in a folder and those below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let found = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => files(&entry.path()),
        _ => vec![entry.path()],
    });
    found.flatten().collect()
}

/// Folders in a folder, and below.
fn folders(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below.map(|entry| 1 + folders(&entry.path())).sum()
}

fn entries(folder: &str) -> usize {
    fs::read_dir(folder).into_iter().flatten().count()
}

/// Those that this process made and named.
fn namespaces() -> usize {
    let own = format!("ss-{}-", std::process::id());
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    names
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&own))
        .count()
}

/// What a process has in memory, MiB.
fn memory(process: &str) -> u64 {
    let status = fs::read_to_string(format!("{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}
