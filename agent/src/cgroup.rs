//! Cgroups that the agent makes for processes of its own, and how a process gets into a cgroup.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::fd::AsFd as _,
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use thiserror::Error;

/// How long the kernel may be busy with a cgroup after the last process in it has ended.
const BUSY: Duration = Duration::from_secs(1);

/// Why a process could not be moved into a cgroup.
#[derive(Debug, Error)]
pub(crate) enum JoinError {
    #[error("joining {}: {error}", .procs.display())]
    Refused { procs: PathBuf, error: io::Error },
    #[error(
        "joining {}: the cgroup is outside of the agent's cgroup namespace, and that of process 1 cannot be entered: {error}; \
             run the agent's container with hostPID, SYS_ADMIN and SYS_PTRACE",
        .procs.display()
    )]
    Namespace { procs: PathBuf, error: io::Error },
    #[error(
        "joining {}: the cgroup is outside of the agent's cgroup namespace, and of that of process 1: run the agent's \
             container with hostPID",
        .0.display()
    )]
    Outside(PathBuf),
}

/// Moves a process into a cgroup, also into one that is outside of the agent's cgroup namespace.
///
/// Container runtimes give each container that is not privileged a cgroup namespace of its own. If the hierarchy is mounted
/// with `nsdelegate`, as systemd does it, the kernel moves no process across the root of that namespace: it answers ENOENT
/// (`cgroup_procs_write_permission`). The namespace that counts is the one in which `cgroup.procs` was opened, so the file is
/// opened again in the node's.
pub(crate) fn join(cgroup: &Path, process: u32) -> Result<(), JoinError> {
    let procs = cgroup.join("cgroup.procs");
    if is_moved(&procs, process)? {
        return Ok(());
    }
    match in_namespace_of_process_1(|| is_moved(&procs, process)) {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(JoinError::Outside(procs)),
        Ok(Err(error)) => Err(error),
        Err(error) => Err(JoinError::Namespace { procs, error }),
    }
}

/// Moves a process if this thread's cgroup namespace allows it; the answer is whether it did.
fn is_moved(procs: &Path, process: u32) -> Result<bool, JoinError> {
    let refused = |error| JoinError::Refused {
        procs: procs.to_owned(),
        error,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .open(procs)
        .map_err(refused)?;
    // One write: the kernel reads a process id from each.
    match file.write_all(process.to_string().as_bytes()) {
        Ok(()) => Ok(true),
        // The file exists, so this is about the namespace.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(refused(error)),
    }
}

/// Runs `f` on a thread of its own in the cgroup namespace of process 1, which in a container with hostPID is the node's.
pub(crate) fn in_namespace_of_process_1<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    let node = File::open("/proc/1/ns/cgroup")?;
    let enter_and_run = || {
        move_into_link_name_space(node.as_fd(), Some(LinkNameSpaceType::ControlGroup))?;
        Ok(f())
    };
    let done = thread::scope(|scope| scope.spawn(enter_and_run).join());
    done.unwrap_or_else(|panic| resume_unwind(panic))
}

/// What a cgroup of the agent's is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Use {
    Probe,
    Rehearsal,
    SelfTest,
}

impl Use {
    const ALL: [Self; 3] = [Self::Probe, Self::Rehearsal, Self::SelfTest];

    const fn name(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Rehearsal => "rehearsal",
            Self::SelfTest => "selftest",
        }
    }
}

/// A cgroup of the agent's own, `sidestep-<use>-<pid of the agent>`, inside another one. It is removed when it is done with.
///
/// It is always inside the pods' cgroup: in the root of the hierarchy, which has the mode 0555, only CAP_DAC_OVERRIDE could
/// make one.
#[derive(Debug)]
pub(crate) struct OwnCgroup(PathBuf);

impl OwnCgroup {
    pub(crate) fn new(inside: &Path, what: Use) -> io::Result<Self> {
        let path = inside.join(format!("sidestep-{}-{}", what.name(), std::process::id()));
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            // Or an earlier process of the same id left it.
            _ => Ok(Self(path)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        let deadline = Instant::now() + BUSY;
        loop {
            match fs::remove_dir(&self.0) {
                Err(error)
                    if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline =>
                {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => {
                    let path = self.0.display();
                    return tracing::warn!(%error, %path, "could not remove the agent's cgroup");
                }
                Ok(()) => return,
            }
        }
    }
}

/// Removes those that agents left which were killed. They are empty: their processes ended with them. Earlier versions made
/// the self-test's beside the pods' cgroup.
pub(crate) fn sweep(pods: &Path) {
    let is_cgroup = |path: &&Path| path.join("cgroup.procs").exists();
    for folder in [Some(pods), pods.parent().filter(is_cgroup)] {
        let entries = folder
            .into_iter()
            .filter_map(|folder| fs::read_dir(folder).ok());
        for entry in entries.flatten().flatten() {
            if entry.file_name().to_str().is_some_and(is_left) {
                remove(&entry.path());
            }
        }
    }
}

/// With those below: a rehearsal has a probe in it.
fn remove(cgroup: &Path) {
    let below = fs::read_dir(cgroup).into_iter().flatten().flatten();
    for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&entry.path());
    }
    match fs::remove_dir(cgroup) {
        Ok(()) => tracing::info!(path = %cgroup.display(), "removed an earlier agent's cgroup"),
        Err(error) => {
            tracing::warn!(%error, path = %cgroup.display(), "could not remove an earlier agent's cgroup");
        }
    }
}

/// Whether it is the name of one whose agent has ended.
fn is_left(name: &str) -> bool {
    let Some((what, pid)) = name
        .strip_prefix("sidestep-")
        .and_then(|rest| rest.split_once('-'))
    else {
        return false;
    };
    Use::ALL.iter().any(|of| of.name() == what)
        && pid
            .parse::<u32>()
            .is_ok_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_left_when_its_agent_has_ended() {
        let own = std::process::id();
        assert!(is_left("sidestep-probe-4294967295"));
        assert!(is_left("sidestep-rehearsal-4294967295"));
        assert!(is_left("sidestep-selftest-4294967295"));
        assert!(!is_left(&format!("sidestep-probe-{own}")));
        for other in [
            "sidestep-other-4294967295",
            "sidestep-probe-x",
            "pod-1",
            "sidestep-probe",
        ] {
            assert!(!is_left(other), "{other}");
        }
    }

    #[test]
    fn a_cgroup_that_is_not_there_is_named_and_no_namespace_is_blamed() {
        let error = join(Path::new("/nowhere"), 1).expect_err("it is not there");
        let text = error.to_string();
        assert!(
            text.starts_with("joining /nowhere/cgroup.procs: No such file"),
            "{text}"
        );
    }
}
