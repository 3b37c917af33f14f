//! Which processes hold sockets, and duplicates of their descriptors.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::fstat,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};
use sidestep_contract::Policy;

/// Most descriptors that are looked at, of all processes together. A proxy opens its listeners before any connection, so
/// theirs are among its first.
const DESCRIPTORS: usize = 65_536;

/// Most of one process, so that no other hides the proxy.
const OF_ONE: usize = 8192;

/// Who holds a socket.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) pid: i32,
    fd: i32,
    /// Its filesystem group.
    pub(super) gid: u32,
}

impl Owner {
    /// Its socket with this inode. Needs `CAP_SYS_PTRACE` over the process. Both numbers may be another's by now: what they
    /// give must be the socket.
    pub(super) fn duplicate(&self, inode: u32) -> io::Result<OwnedFd> {
        let pid = Pid::from_raw(self.pid).ok_or(io::ErrorKind::NotFound)?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let socket = pidfd_getfd(process, self.fd, PidfdGetfdFlags::empty())?;
        if fstat(socket.as_fd())?.st_ino == u64::from(inode) {
            Ok(socket)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

/// A process, as far as it matters whose it is.
struct Process {
    pid: i32,
    folder: PathBuf,
    gid: u32,
}

/// Looks through those of the processes that are in a network namespace for the holders of these sockets, the proxy's
/// processes first, until every socket has one.
pub(super) fn find(
    netns: u64,
    processes: &[i32],
    policy: &Policy,
    mut sockets: BTreeSet<u32>,
) -> BTreeMap<u32, Owner> {
    let mut owners = BTreeMap::new();
    let mut left = DESCRIPTORS;
    for process in sorted(netns, processes, policy) {
        if sockets.is_empty() || left == 0 {
            break;
        }
        // A process that ends meanwhile is skipped.
        let Ok(descriptors) = fs::read_dir(process.folder.join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten().take(left.min(OF_ONE)) {
            left -= 1;
            let link = fs::read_link(descriptor.path()).unwrap_or_default();
            let inode = link
                .to_str()
                .and_then(|l| l.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            let fd = descriptor.file_name().to_str().and_then(|n| n.parse().ok());
            if let (Some(inode), Some(fd)) = (inode, fd)
                && sockets.remove(&inode)
            {
                let owner = Owner {
                    pid: process.pid,
                    fd,
                    gid: process.gid,
                };
                owners.insert(inode, owner);
                if sockets.is_empty() {
                    break;
                }
            }
        }
    }
    owners
}

fn sorted(netns: u64, processes: &[i32], policy: &Policy) -> Vec<Process> {
    let (mut proxys, mut others) = (Vec::new(), Vec::new());
    for pid in processes.iter().copied() {
        // A process that ends meanwhile is skipped by each of these.
        let folder = PathBuf::from(format!("/proc/{pid}"));
        if fs::metadata(folder.join("ns/net")).map(|m| m.ino()).ok() != Some(netns) {
            continue;
        }
        let Some((uid, gid)) = filesystem_ids(&folder) else {
            continue;
        };
        let is_proxys = policy.proxy_uids.contains(&uid) || policy.proxy_gids.contains(&gid);
        let these = if is_proxys { &mut proxys } else { &mut others };
        these.push(Process { pid, folder, gid });
    }
    proxys.append(&mut others);
    proxys
}

/// The fourth numbers of the `Uid:` and `Gid:` lines are the filesystem's.
fn filesystem_ids(process: &Path) -> Option<(u32, u32)> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    let id = |name| {
        let line = status.lines().find_map(|l| l.strip_prefix(name))?;
        line.split_whitespace().nth(3)?.parse().ok()
    };
    Some((id("Uid:")?, id("Gid:")?))
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsRawFd as _};

    use super::*;
    use crate::probe::policy;

    fn inode_of(listener: &TcpListener) -> u32 {
        let stat = fstat(listener.as_fd()).expect("a socket");
        u32::try_from(stat.st_ino).expect("the kernel's numbers of sockets are short")
    }

    #[test]
    fn a_descriptor_that_is_another_files_by_now_is_not_the_socket() {
        let listeners = ["127.0.0.1:0"; 2].map(|any| TcpListener::bind(any).expect("a port"));
        let [first, second] = listeners.each_ref().map(inode_of);
        let own = i32::try_from(std::process::id()).expect("a process id");
        let netns = fs::metadata("/proc/self/ns/net")
            .expect("a namespace")
            .ino();
        let wanted = BTreeSet::from([first, second]);
        let owners = find(netns, &[own], &policy(1337).expect("a policy"), wanted);
        assert_eq!(owners[&first].fd, listeners[0].as_raw_fd());
        assert!(owners[&first].duplicate(first).is_ok());
        let error = owners[&first]
            .duplicate(second)
            .expect_err("another socket");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn processes_of_another_namespace_hold_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = i32::try_from(std::process::id()).expect("a process id");
        let wanted = BTreeSet::from([inode_of(&listener)]);
        assert!(find(0, &[own], &policy(1337).expect("a policy"), wanted).is_empty());
    }
}
