//! What this machine must offer, checked before anything is changed, each failure with what to do about it.

pub mod capabilities;
mod lock;
pub mod selinux;

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{major, minor},
    io::Errno,
    mount::{MountFlags, mount},
    net::{AddressFamily, SocketType, socket},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use sidestep_ebpf_common::KernelOffsets;
use sidestep_kernel::{
    ancestors::ancestors,
    btf::{BTF, BtfError, Types, kernel_memory_is_locked},
    object::ProgramKind,
};
use thiserror::Error;

use self::capabilities::Capability;
pub use self::lock::{Lock, PinFolder, lock};

const CGROUP2_MAGIC: u64 = 0x6367_7270;
const BPFFS_MAGIC: u64 = 0xcafe_4a11;

/// What is missing.
#[derive(Debug, Error)]
pub enum PreflightError {
    /// Not root.
    #[error(
        "must run as root (loading BPF programs and entering network namespaces need it): try sudo"
    )]
    NotRoot,
    /// No such folder.
    #[error("cgroup {path}: {error}")]
    Cgroup {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Not version 2.
    #[error("{path} is not in a cgroup v2 hierarchy; {hint}")]
    NotCgroup2 {
        /// Which.
        path: PathBuf,
        /// Where there is one.
        hint: String,
    },
    /// There is an agent.
    #[error("another agent (process {pid}) looks after {what}: stop it first")]
    NotAlone {
        /// Where.
        what: String,
        /// Its process id, as it sees it.
        pid: String,
    },
    /// It cannot be seen whether there is one.
    #[error("{path}: {error}; the agent keeps its locks there")]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// No type information.
    #[error(
        "this kernel has no BTF ({BTF}): Sidestep needs a kernel built with CONFIG_DEBUG_INFO_BTF"
    )]
    NoBtf,
    /// A type of program is missing.
    #[error(
        "this kernel does not offer BPF programs of type {0:?}: Sidestep needs Linux 6.1 or later"
    )]
    NoProgramType(ProgramKind),
    /// It may not do what it must.
    #[error("{} is missing, {}: add it to the agent's container", .0.name, .0.why)]
    Capability(Capability),
    /// Pins would not stay.
    #[error(
        "{path} {reason}: mount a bpffs at /sys/fs/bpf on the node (systemd does), mount that folder into the agent's \
             container, and run it with hostPID"
    )]
    Pins {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Nowhere to pin.
    #[error(
        "{path}: {error}; mount a bpffs there (mount -t bpf bpf {path}), or choose another folder with --pin"
    )]
    Bpffs {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Checks everything that needs no change; the answer is where the kernel keeps things.
pub fn check(cgroup: &Path) -> Result<KernelOffsets, PreflightError> {
    if !rustix::process::geteuid().is_root() {
        return Err(PreflightError::NotRoot);
    }
    check_cgroup(cgroup)?;
    if !Path::new(BTF).exists() {
        return Err(PreflightError::NoBtf);
    }
    if let Some(kind) = ProgramKind::ALL.into_iter().find(|kind| kind.is_missing()) {
        return Err(PreflightError::NoProgramType(kind));
    }
    if has_no_ipv6() {
        tracing::warn!("this kernel has no IPv6: what proofs and checks do over it is left out");
    }
    if kernel_memory_is_locked() {
        tracing::warn!("kernel lockdown: the ids of setuid programs are taken from their real ids");
        return Ok(KernelOffsets::UNREADABLE);
    }
    let offsets = match Types::read() {
        Err(BtfError::File(_)) => return Err(PreflightError::NoBtf),
        Err(BtfError::Format(_)) => None,
        Ok(types) => kernel_offsets(&types),
    };
    Ok(offsets.unwrap_or_else(|| {
        tracing::warn!("this kernel's BTF lacks what tells a socket's owner: the ids of setuid programs are taken from their real ids");
        KernelOffsets::UNREADABLE
    }))
}

fn has_no_ipv6() -> bool {
    let socket = socket(AddressFamily::INET6, SocketType::DGRAM, None);
    socket.is_err_and(|error| error == Errno::AFNOSUPPORT)
}

fn check_cgroup(path: &Path) -> Result<(), PreflightError> {
    let cgroup = |error: io::Error| PreflightError::Cgroup {
        path: path.to_owned(),
        error,
    };
    let stat = rustix::fs::statfs(path).map_err(|e| cgroup(e.into()))?;
    if stat.f_type.cast_unsigned() != CGROUP2_MAGIC {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let mounted = mounts.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (_, at, kind) = (words.next()?, words.next()?, words.next()?);
            (kind == "cgroup2").then(|| at.to_owned())
        });
        return Err(PreflightError::NotCgroup2 {
            path: path.to_owned(),
            hint: mounted.map_or("this machine has none mounted".to_owned(), |at| {
                format!("this machine's is mounted at {at}")
            }),
        });
    }
    Ok(())
}

fn kernel_offsets(types: &Types) -> Option<KernelOffsets> {
    Some(KernelOffsets {
        task_cred: types.offset("task_struct", "cred")?,
        cred_fsuid: types.offset("cred", "fsuid")?,
        cred_fsgid: types.offset("cred", "fsgid")?,
        sk_socket: types.offset("sock", "sk_socket")?,
        socket_file: types.offset("socket", "file")?,
        file_cred: types.offset("file", "f_cred")?,
        task_tgid: types.offset("task_struct", "tgid")?,
        task_nsproxy: types.offset("task_struct", "nsproxy")?,
        nsproxy_net: types.offset("nsproxy", "net_ns")?,
        net_cookie: types.offset("net", "net_cookie")?,
    })
}

/// Allows this process as many descriptors as it may have: each armed pod costs one, and container runtimes start with 1024.
pub fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "could not raise the limit of open files");
    }
}

fn is_bpffs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|s| s.f_type.cast_unsigned() == BPFFS_MAGIC)
}

/// Whether a folder is on a bpffs, or will be once it is made.
pub(crate) fn is_on_bpffs(folder: &Path) -> bool {
    let mut existing = folder.ancestors().filter(|path| path.exists());
    existing.next().is_some_and(is_bpffs)
}

/// Makes sure that the pin folder's parent is a bpffs, mounting one where there is none. Returns where it mounted.
pub fn ensure_bpffs(pin: &Path) -> Result<Option<PathBuf>, PreflightError> {
    let at = pin.parent().unwrap_or(pin);
    let failed = |error: io::Error| PreflightError::Bpffs {
        path: at.to_owned(),
        error,
    };
    if is_bpffs(at) || is_bpffs(pin) {
        return Ok(None);
    }
    fs::create_dir_all(at).map_err(failed)?;
    let occupied = fs::read_dir(at).map_err(failed)?.next().is_some();
    if occupied {
        // Mounting over somebody's files would hide them.
        return Err(failed(io::Error::other("is neither a bpffs nor empty")));
    }
    mount("bpf", at, "bpf", MountFlags::empty(), Some(c"mode=0700"))
        .map_err(|e| failed(e.into()))?;
    tracing::info!(path = %at.display(), "mounted a bpffs");
    Ok(Some(at.to_owned()))
}

/// Makes sure that the pin folder is on the node's own bpffs, which outlives a container: what a container mounts for
/// itself goes with it, and with it the interception of every pod.
pub fn check_pins(pin: &Path) -> Result<(), PreflightError> {
    let at = pin.parent().unwrap_or(pin);
    let failed = |reason: &str| PreflightError::Pins {
        path: at.to_owned(),
        reason: reason.to_owned(),
    };
    let stat = rustix::fs::statfs(at).map_err(|e| failed(&e.to_string()))?;
    if stat.f_type.cast_unsigned() != BPFFS_MAGIC {
        return Err(failed("is not on a bpffs"));
    }
    let device = fs::metadata(at).map_err(|e| failed(&e.to_string()))?.dev();
    let (major, minor) = (major(device), minor(device));
    let outside = outside().any(|pid| {
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        is_mounted(&mounts, major, minor)
    });
    if outside {
        Ok(())
    } else {
        Err(failed("is on a bpffs of the container alone"))
    }
}

/// The processes that brought this one about and see the node's mounts: a container's runtime, and process 1.
fn outside() -> impl Iterator<Item = u32> {
    let mounts = |pid: &dyn std::fmt::Display| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let own = mounts(&"self");
    ancestors().filter(move |pid| *pid == 1 || mounts(pid).is_some_and(|other| Some(other) != own))
}

/// Whether a file system of this device is among the mounts of this text (`/proc/<pid>/mountinfo`).
fn is_mounted(mounts: &str, major: u32, minor: u32) -> bool {
    let device = format!("{major}:{minor}");
    mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some(device.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_known_by_its_device() {
        let mounts = "36 25 0:31 / /sys/fs/bpf rw,relatime shared:17 - bpf bpf rw,mode=700\n";
        assert!(is_mounted(mounts, 0, 31));
        assert!(!is_mounted(mounts, 0, 3));
        assert!(!is_mounted("", 0, 31));
    }
}
