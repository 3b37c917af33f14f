//! The cluster's cgroup: a folder of its name at the top of every hierarchy, v2 and, on hybrid machines, v1.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use sidestep_kit::cgroup;

/// Where the parts of the node are; the pods' `kubepods` is beside it.
const NODE: &str = "node";

/// What a kubelet on a machine with v2 only shares out.
const CONTROLLERS: &str = "+cpu +cpuset +memory +pids +io";

/// Makes the folders. What is changed at the machine's root is written to the file `record`, for [`remove`].
pub fn make(name: &str, record: &Path) -> anyhow::Result<()> {
    for folder in folders(name) {
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    let top = cgroup::mount_point();
    let folder = top.join(name);
    if top.join("cgroup.controllers").exists() && v1_mounts().is_empty() {
        share_out(&top, record)?;
        let control = control(&folder);
        fs::write(&control, CONTROLLERS).with_context(|| control.display().to_string())?;
    }
    let node = folder.join(NODE);
    fs::create_dir_all(&node).with_context(|| node.display().to_string())
}

/// Shares out at the root what a node needs, and notes which of it was not before.
fn share_out(top: &Path, record: &Path) -> anyhow::Result<()> {
    let control = control(top);
    let before = fs::read_to_string(&control).with_context(|| control.display().to_string())?;
    let missing = CONTROLLERS.split(' ').filter(|word| {
        let name = word.trim_start_matches('+');
        !before.split_whitespace().any(|there| there == name)
    });
    let missing: Vec<_> = missing.collect();
    // Noted first: whoever is killed in between leaves too long a note, which does no harm.
    fs::write(record, missing.join(" ").replace('+', "-"))?;
    fs::write(&control, CONTROLLERS).with_context(|| control.display().to_string())
}

/// Takes that back. Whatever another cgroup, such as another cluster's, uses by now the kernel keeps.
fn take_back(top: &Path, record: &Path) {
    let noted = fs::read_to_string(record).unwrap_or_default();
    for word in noted.split_whitespace() {
        let _in_use = fs::write(control(top), word);
    }
}

fn control(folder: &Path) -> PathBuf {
    folder.join("cgroup.subtree_control")
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

/// Kills every process in it, removes the folders, and takes back what is in the `record`.
pub fn remove(name: &str, record: &Path) {
    // At once, so that nothing restarts what another part of it lost. What is left is done below.
    let _ = fs::write(kill_file(name), "1");
    for folder in folders(name) {
        if folder.exists() {
            cgroup::remove(&folder);
        }
    }
    take_back(&cgroup::mount_point(), record);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_shared_out_before_is_taken_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let record = folder.path().join("record");
        let write = |text: &str| fs::write(control(folder.path()), text).expect("a file of ours");
        let read = |path: &Path| fs::read_to_string(path).expect("it was written");
        write("cpu memory pids io\n");
        share_out(folder.path(), &record).expect("both can be written");
        assert_eq!(read(&control(folder.path())), CONTROLLERS);
        assert_eq!(read(&record), "-cpuset");
        take_back(folder.path(), &record);
        assert_eq!(read(&control(folder.path())), "-cpuset");
        write(CONTROLLERS);
        take_back(folder.path(), &folder.path().join("no record"));
        assert_eq!(read(&control(folder.path())), CONTROLLERS);
    }
}
