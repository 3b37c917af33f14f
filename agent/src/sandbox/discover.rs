//! Finds pods' network namespaces without a CNI plugin: a pod's cgroup is named by its uid, the processes in it are the
//! pod's, and one of them is in the namespace. Nothing is held open, and no namespace is remembered: runtimes make sandboxes
//! anew under the same pod.

mod hierarchy;
pub mod path;
mod resolver;

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use sidestep_contract::Dns;
use sidestep_kernel::{
    ancestors::ancestors,
    netns::{Namespace, NetnsError},
};

pub use self::hierarchy::{HierarchyError, check_own_container, mount_of, pods_cgroup};
use self::resolver::Resolvers;
use crate::{
    clock::Now,
    pods::wanted::{Place, PodUid, Wanted},
    sandbox::{Node, Owner, PodSandbox},
};

/// Most processes of a pod that are looked at: of each folder the first in turn, so that no container hides the others. The
/// kernel lists a folder's processes in the order in which they came, so a container's first is among them, and with it
/// the sandbox's and the proxy's.
const PROCESSES: usize = 512;

/// Most folders below a pod's: containers, and what containers make of their own.
const FOLDERS: usize = 256;

/// The pods of a node, by their cgroups.
#[derive(Debug)]
pub struct InCgroups {
    root: PathBuf,
    /// The node's own network namespace, and the agent's. A pod's processes start in the node's: the runtime puts them into the
    /// pod's cgroup first.
    not_pods: BTreeSet<u64>,
    resolvers: Resolvers,
}

/// A process, and the network namespace it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    netns: u64,
}

impl InCgroups {
    /// The pods in this folder of the v2 hierarchy.
    pub fn new(root: PathBuf) -> Self {
        let own = [std::process::id(), 1];
        let not_pods = own
            .into_iter()
            .chain(ancestors())
            .filter_map(|pid| inode(&PathBuf::from(format!("/proc/{pid}/ns/net"))).ok())
            .collect();
        Self {
            root,
            not_pods,
            resolvers: Resolvers::of_node(),
        }
    }

    /// A pod's processes that are in a namespace of their own, in no order.
    fn processes(&self, uid: &PodUid) -> Vec<Process> {
        let folders = path::folders(&self.root, uid);
        let lists: Vec<_> = folders.iter().flat_map(|folder| pids_in(folder)).collect();
        in_turn(&lists)
            .take(PROCESSES)
            .filter_map(|pid| {
                let netns = inode(&PathBuf::from(format!("/proc/{pid}/ns/net"))).ok()?;
                (!self.not_pods.contains(&netns)).then_some(Process { pid, netns })
            })
            .collect()
    }
}

impl Node for InCgroups {
    type Sandbox = PodSandbox;

    fn now(&self) -> Now {
        Now::read()
    }

    fn find(&self, wanted: &Wanted) -> Result<Option<PodSandbox>, NetnsError> {
        let Place::Cgroup(uid) = &wanted.place else {
            return Ok(None);
        };
        let processes = self.processes(uid);
        let Some(netns) = sandbox_of(&processes, started) else {
            return Ok(None);
        };
        let pids: Vec<i32> = processes
            .iter()
            .filter(|process| process.netns == netns)
            .map(|process| process.pid)
            .collect();
        for pid in &pids {
            let namespace = match Namespace::open(&format!("/proc/{pid}/ns/net")) {
                Ok(namespace) => namespace,
                // It ended meanwhile.
                Err(NetnsError::Missing(_)) => continue,
                Err(NetnsError::Io { error, .. }) if is_gone(&error) => continue,
                Err(error) => return Err(error),
            };
            // Its number may be another's by now.
            if namespace.inode().ok() == Some(netns) && self.owner(pid.unsigned_abs()).is(uid) {
                let name_servers = match wanted.policy.dns {
                    Dns::ToServers => {
                        let mut oldest_first = pids.clone();
                        // The sandbox's own first, whose resolv.conf the kubelet wrote.
                        oldest_first.sort_by_cached_key(|pid| started(*pid).unwrap_or(u64::MAX));
                        let resolvers = &self.resolvers;
                        resolvers.name_servers(uid, oldest_first, &wanted.name_servers)
                    }
                    Dns::Off | Dns::All => Vec::new(),
                };
                return Ok(Some(PodSandbox {
                    namespace,
                    name_servers,
                    pids: Some(pids),
                    given: Some(wanted.addresses.clone()),
                }));
            }
        }
        Ok(None)
    }

    fn owner(&self, pid: u32) -> Owner {
        match fs::read_to_string(format!("/proc/{pid}/cgroup")) {
            Ok(text) => path::of_process(&text).map_or(Owner::Other, Owner::Pod),
            Err(_) => Owner::Gone,
        }
    }
}

impl Owner {
    fn is(&self, uid: &PodUid) -> bool {
        matches!(self, Self::Pod(of) if of == uid)
    }
}

/// Which namespace is the pod's: that of the process that `started` first. Containers that make namespaces of their own
/// (as a container engine in a container does) come after the sandbox.
fn sandbox_of(processes: &[Process], started: impl Fn(i32) -> Option<u64>) -> Option<u64> {
    let first = processes.first()?;
    if processes.iter().all(|process| process.netns == first.netns) {
        return Some(first.netns); // the usual case
    }
    let dated = processes
        .iter()
        .filter_map(|process| Some((started(process.pid)?, process.netns)));
    dated.min().map(|(_, netns)| netns)
}

/// When a process started, in clock ticks after boot: the 22nd field of its `stat`. The second, its name, may hold
/// anything.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let behind_name = &stat[stat.rfind(')')? + 1..];
    behind_name.split_whitespace().nth(19)?.parse().ok()
}

/// The first of each list, then the second of each, and so on.
fn in_turn(lists: &[Vec<i32>]) -> impl Iterator<Item = i32> {
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest).flat_map(move |n| lists.iter().filter_map(move |list| list.get(n).copied()))
}

/// The processes in a cgroup, and in each one below it. Those that the agent cannot see have the number 0.
fn pids_in(folder: &Path) -> Vec<Vec<i32>> {
    let mut lists = Vec::new();
    let mut folders = vec![folder.to_owned()];
    let mut next = 0;
    while let Some(folder) = folders.get(next).cloned() {
        next += 1;
        let Ok(procs) = File::open(folder.join("cgroup.procs")) else {
            continue;
        };
        let lines = BufReader::new(procs).lines().map_while(Result::ok);
        let pids = lines.filter_map(|line| line.parse().ok());
        lists.push(pids.filter(|pid| *pid > 0).take(PROCESSES).collect());
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let room = FOLDERS.saturating_sub(folders.len());
        folders.extend(below.map(|entry| entry.path()).take(room));
    }
    lists
}

fn inode(path: &Path) -> io::Result<u64> {
    fs::metadata(path).map(|metadata| metadata.ino())
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SANDBOX: u64 = 10;
    const NESTED: u64 = 20;

    fn processes(all: &[(i32, u64)]) -> Vec<Process> {
        let of = |(pid, netns): &(i32, u64)| Process {
            pid: *pid,
            netns: *netns,
        };
        all.iter().map(of).collect()
    }

    #[test]
    fn the_namespace_of_the_first_process_is_the_pods() {
        let all = processes(&[(30, NESTED), (7, SANDBOX), (31, NESTED), (8, SANDBOX)]);
        let started = |pid| u64::try_from(pid).ok();
        assert_eq!(sandbox_of(&all, started), Some(SANDBOX));
    }

    #[test]
    fn no_container_hides_the_others() {
        let crowd: Vec<i32> = (1000..3000).collect();
        let lists = [crowd, vec![], vec![7], vec![8, 9]];
        let first: Vec<i32> = in_turn(&lists).take(PROCESSES).collect();
        assert_eq!(first[..5], [1000, 7, 8, 1001, 9]);
        assert_eq!(first.len(), PROCESSES);
        assert_eq!(in_turn(&lists).count(), 2003);
    }

    #[test]
    fn one_namespace_needs_no_dates() {
        let all = processes(&[(30, SANDBOX), (7, SANDBOX)]);
        assert_eq!(sandbox_of(&all, |_| None), Some(SANDBOX));
        assert_eq!(sandbox_of(&[], |_| None), None);
    }

    #[test]
    fn processes_that_ended_decide_nothing() {
        let all = processes(&[(30, NESTED), (7, SANDBOX)]);
        let started = |pid| (pid == 30).then_some(5);
        assert_eq!(sandbox_of(&all, started), Some(NESTED));
    }

    #[test]
    fn a_process_knows_when_it_started() {
        let own = i32::try_from(std::process::id()).expect("a process id");
        assert!(started(own).is_some_and(|ticks| ticks > 0));
    }
}
