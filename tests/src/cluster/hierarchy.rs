//! The cluster's cgroup: a folder of its name at the top of every hierarchy, v2 and, on hybrid machines, v1.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::cgroup;

/// Where the parts of the node are; the pods' `kubepods` is beside it.
const NODE: &str = "node";

/// What a kubelet on a machine with v2 only shares out.
const CONTROLLERS: &str = "+cpu +cpuset +memory +pids +io";

/// Makes the folders.
pub fn make(name: &str) -> anyhow::Result<()> {
    for folder in folders(name) {
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    let top = cgroup::mount_point();
    let folder = top.join(name);
    if top.join("cgroup.controllers").exists() && v1_mounts().is_empty() {
        for above in [&top, &folder] {
            let control = above.join("cgroup.subtree_control");
            fs::write(&control, CONTROLLERS).with_context(|| control.display().to_string())?;
        }
    }
    let node = folder.join(NODE);
    fs::create_dir_all(&node).with_context(|| node.display().to_string())
}

/// The file through which a process becomes one of the node's.
pub fn procs(name: &str) -> PathBuf {
    cgroup::mount_point()
        .join(name)
        .join(NODE)
        .join("cgroup.procs")
}

/// The file that kills everything in the cgroup.
pub fn kill_file(name: &str) -> PathBuf {
    cgroup::mount_point().join(name).join("cgroup.kill")
}

/// How many processes are in it.
pub fn population(name: &str) -> usize {
    count(&cgroup::mount_point().join(name))
}

/// Kills every process in it and removes the folders.
pub fn remove(name: &str) {
    // At once, so that nothing restarts what another part of it lost. What is left is done below.
    let _ = fs::write(kill_file(name), "1");
    for folder in folders(name) {
        if folder.exists() {
            cgroup::remove(&folder);
        }
    }
}

/// Whether anything of it is there.
pub fn exists(name: &str) -> bool {
    folders(name).iter().any(|folder| folder.exists())
}

fn count(folder: &Path) -> usize {
    let procs = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let below = fs::read_dir(folder).into_iter().flatten().flatten();
    let below = below.filter(|entry| entry.path().is_dir());
    procs.lines().count() + below.map(|entry| count(&entry.path())).sum::<usize>()
}

fn folders(name: &str) -> Vec<PathBuf> {
    let mut mounts = v1_mounts();
    mounts.insert(cgroup::mount_point());
    mounts.into_iter().map(|mount| mount.join(name)).collect()
}

fn v1_mounts() -> BTreeSet<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup").then(|| PathBuf::from(path))
    });
    // Co-mounted controllers are also reached by links, which are not mounts.
    mounts.collect()
}
