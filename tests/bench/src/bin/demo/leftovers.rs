//! What of ours is still on the machine.

use std::path::{Path, PathBuf};

use sidestep_kit::cgroup;

/// Names of namespaces, cgroups, folders and child processes that this process made and that still exist.
pub(crate) fn list() -> Vec<String> {
    let ours = format!("ss-{}-", std::process::id());
    let folders = [
        PathBuf::from("/var/run/netns"),
        cgroup::mount_point(),
        std::env::temp_dir(),
    ];
    let named = folders
        .into_iter()
        .flat_map(|folder| entries(&folder))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with(&ours)
        })
        .map(|path| path.display().to_string());
    named.chain(children()).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn children() -> Vec<String> {
    let tasks = entries(Path::new("/proc/self/task"));
    let children = tasks
        .iter()
        .filter_map(|task| std::fs::read_to_string(task.join("children")).ok());
    let mut names = Vec::new();
    for pids in children {
        names.extend(pids.split_whitespace().map(|pid| format!("process {pid}")));
    }
    names
}
