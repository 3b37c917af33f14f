//! Where the pods' cgroup is in the v2 hierarchy, as the agent sees it: on the node, or in a container that has the node's
//! hierarchy mounted somewhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::path::{is_pods, misplaced, of_process, unified};
use crate::cgroup::in_namespace_of_process_1;

/// How deep `--cgroup-root` may put it.
const DEPTH: usize = 4;

/// Why the pods' cgroup cannot be told.
#[derive(Debug, Error)]
pub enum HierarchyError {
    /// No version 2.
    #[error(
        "no cgroup v2 hierarchy is mounted here: mount the node's /sys/fs/cgroup into the agent's container"
    )]
    NotMounted,
    /// There is none.
    #[error(
        "no cgroup kubepods or kubepods.slice in {}: mount the node's /sys/fs/cgroup into the agent's container, run kubelet \
             with --cgroups-per-qos (its default), or name the pods' cgroup with --cgroup (agent.cgroup in the chart)",
        list(.0)
    )]
    NotFound(Vec<PathBuf>),
    /// Which is it?
    #[error(
        "several cgroups could be the pods': {}; name the right one with --cgroup (agent.cgroup in the chart)",
        list(.0)
    )]
    Several(Vec<PathBuf>),
    /// Pods' processes are elsewhere.
    #[error(
        "kubelet makes pods' cgroups with the systemd driver, and the container runtime puts containers elsewhere (the agent's \
             is in {0}): set SystemdCgroup = true for runc in containerd's configuration, restart containerd, and drain the node"
    )]
    OtherDriver(String),
    /// The same, for another reason.
    #[error(
        "the agent's own container is in {own}, which is no pod's cgroup in {}, so no pod would be found there: run kubelet \
             with --cgroups-per-qos (its default), and let --cgroup (agent.cgroup in the chart) name the cgroup of all pods",
        .cgroup.display()
    )]
    Outside {
        /// The agent's, as the node sees it.
        own: String,
        /// The pods'.
        cgroup: PathBuf,
    },
}

/// Makes sure that the container runtime puts the pods' containers where kubelet wants them, below this cgroup. The agent's
/// own tells, for it is in a pod.
pub fn check_own_container(cgroup: &Path) -> Result<(), HierarchyError> {
    let mounts = mounts(&fs::read_to_string("/proc/self/mounts").unwrap_or_default());
    check_container(&own_cgroup(), &mounts, cgroup)
}

fn check_container(own: &str, mounts: &[PathBuf], cgroup: &Path) -> Result<(), HierarchyError> {
    if let Some(path) = misplaced(own) {
        return Err(HierarchyError::OtherDriver(path.to_owned()));
    }
    let path = unified(own).unwrap_or_default();
    let mut seen = mounts
        .iter()
        .map(|mount| mount.join(path.trim_start_matches('/')));
    if of_process(own).is_some() && seen.any(|own| own.starts_with(cgroup)) {
        return Ok(());
    }
    Err(HierarchyError::Outside {
        own: path.to_owned(),
        cgroup: cgroup.to_owned(),
    })
}

/// Finds it. Where there are several: the one that the agent itself is in, as a pod of its node, or else the one with
/// processes in it.
pub fn pods_cgroup() -> Result<PathBuf, HierarchyError> {
    let mounts = mounts(&fs::read_to_string("/proc/self/mounts").unwrap_or_default());
    if mounts.is_empty() {
        return Err(HierarchyError::NotMounted);
    }
    let mut found = Vec::new();
    for mount in &mounts {
        below(mount, DEPTH, &mut found);
    }
    if let Some(own) = own_pods(&own_cgroup())
        && let Some(only) = mounts
            .iter()
            .map(|mount| mount.join(&own))
            .find(|path| found.contains(path))
    {
        return Ok(only);
    }
    choose(found, is_populated).map_err(|several| match several {
        several if several.is_empty() => HierarchyError::NotFound(mounts),
        several => HierarchyError::Several(several),
    })
}

/// The text of the agent's own `/proc/<pid>/cgroup`, as the node sees it: from a cgroup namespace of its own the agent would
/// see just `/`.
fn own_cgroup() -> String {
    let read = || fs::read_to_string("/proc/thread-self/cgroup").unwrap_or_default();
    in_namespace_of_process_1(read).unwrap_or_else(|_| read())
}

/// The pods' cgroup that a process is in, below the hierarchy's root, from the text of its `/proc/<pid>/cgroup`.
fn own_pods(text: &str) -> Option<PathBuf> {
    let path = unified(text)?.strip_prefix('/')?;
    let above = Path::new(path).ancestors();
    let pods = above.filter(|path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(is_pods)
    });
    // The outermost: below it a container may have made what it likes.
    pods.last().map(Path::to_owned)
}

/// The v2 hierarchies among the mounts of this text (`/proc/<pid>/mounts`).
fn mounts(text: &str) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let mut fields = line.split(' ');
        let (_, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(at.replace("\\040", " ")))
    };
    text.lines().filter_map(mount).collect()
}

/// Where the hierarchy is mounted that holds `cgroup`.
pub fn mount_of(cgroup: &Path) -> Option<PathBuf> {
    let all = mounts(&fs::read_to_string("/proc/self/mounts").unwrap_or_default());
    let holding = all.into_iter().filter(|mount| cgroup.starts_with(mount));
    holding.max_by_key(|mount| mount.as_os_str().len())
}

fn below(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        // What a pod has below its own folder is the pod's.
        if entry.file_name().to_str().is_some_and(is_pods) {
            found.push(entry.path());
        } else if depth > 1 {
            below(&entry.path(), depth - 1, found);
        }
    }
}

/// The only one, or the only one that is populated; else all that could be meant.
fn choose(
    mut found: Vec<PathBuf>,
    populated: impl Fn(&Path) -> bool,
) -> Result<PathBuf, Vec<PathBuf>> {
    if found.len() > 1 {
        let full: Vec<_> = found
            .iter()
            .filter(|path| populated(path))
            .cloned()
            .collect();
        if !full.is_empty() {
            found = full;
        }
    }
    match found.pop() {
        Some(only) if found.is_empty() => Ok(only),
        last => Err(found.into_iter().chain(last).collect()),
    }
}

fn is_populated(cgroup: &Path) -> bool {
    fs::read_to_string(cgroup.join("cgroup.events"))
        .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hierarchies_of_version_2_are_looked_at() {
        let text = "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\ntmpfs /run tmpfs rw 0 0\n";
        assert_eq!(mounts(text), [PathBuf::from("/sys/fs/cgroup/unified")]);
    }

    #[test]
    fn a_pod_knows_the_cgroup_of_its_nodes_pods() {
        let own = |path: &str| own_pods(&format!("3:cpu:/x/kubepods\n0::{path}\n"));
        let cgroupfs = "/node-1/kubepods/besteffort/podab/c/kubepods/x";
        assert_eq!(own(cgroupfs), Some(PathBuf::from("node-1/kubepods")));
        let systemd = "/kubepods.slice/kubepods-burstable.slice/cri.scope";
        assert_eq!(own(systemd), Some(PathBuf::from("kubepods.slice")));
        // What a cgroup namespace of the container's own shows.
        assert_eq!(own("/"), None);
        assert_eq!(own_pods("4:memory:/kubepods/pod1\n"), None);
    }

    #[test]
    fn the_agents_container_tells_where_the_runtime_puts_pods() {
        const UID: &str = "0f3a6a0e_1c2b_4d5e_8f90_abcdef012345";
        let check = |own: &str, cgroup: &str| {
            let mounts = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
            let said = check_container(&format!("0::{own}\n"), &mounts, Path::new(cgroup));
            said.map_err(|error| error.to_string())
        };
        let own = format!("/kubepods.slice/kubepods-pod{UID}.slice/cri-containerd-1.scope");
        assert_eq!(check(&own, "/sys/fs/cgroup/kubepods.slice"), Ok(()));
        assert_eq!(check(&own, "/sys/fs/cgroup/unified/kubepods.slice"), Ok(()));

        let order = format!("/system.slice/containerd.service/kubepods-pod{UID}.slice:cri:1");
        let error = check(&order, "/sys/fs/cgroup/kubepods.slice").expect_err("another driver");
        assert!(
            error.contains(&order) && error.contains("SystemdCgroup = true"),
            "{error}"
        );

        // Kubelet without --cgroups-per-qos; another agent.cgroup than the pods'; no hostPID.
        for (own, cgroup) in [
            ("/k8s.io/4f5d", "/sys/fs/cgroup"),
            (&*own, "/sys/fs/cgroup/other"),
            ("/", "/sys/fs/cgroup/kubepods.slice"),
        ] {
            let error = check(own, cgroup).expect_err("it is outside");
            assert!(error.contains(&format!("is in {own},")), "{error}");
            assert!(error.contains("--cgroups-per-qos"), "{error}");
        }
    }

    #[test]
    fn of_several_the_populated_one_is_chosen_and_else_none() {
        let paths: Vec<PathBuf> = ["/a/kubepods", "/b/kubepods"].map(PathBuf::from).to_vec();
        let b = |path: &Path| path.starts_with("/b");
        assert_eq!(choose(paths.clone(), b), Ok(paths[1].clone()));
        assert_eq!(choose(paths.clone(), |_| true), Err(paths.clone()));
        assert_eq!(choose(paths.clone(), |_| false), Err(paths.clone()));
        assert_eq!(choose(Vec::new(), |_| true), Err(Vec::new()));
        assert_eq!(choose(paths[..1].to_vec(), |_| false), Ok(paths[0].clone()));
    }
}
