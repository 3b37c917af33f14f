//! Cgroups that the agent makes for processes of its own, among the pods' or beside them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::ProbeError;

/// What makes one, as its name says: `sidestep-<what>-<pid of the agent>`.
const MAKERS: [&str; 3] = ["probe", "rehearsal", "selftest"];

/// A cgroup that is removed when it is done with.
pub(super) struct Place(PathBuf);

impl Place {
    pub(super) fn new(cgroup: &Path, what: &str) -> Result<Self, ProbeError> {
        let path = cgroup.join(format!("sidestep-{what}-{}", std::process::id()));
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(ProbeError::Cgroup {
                cgroup: cgroup.to_owned(),
                error,
            }),
            _ => Ok(Self(path)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "a cgroup of the agent's own stays");
        }
    }
}

/// Removes those that agents left which were killed. They are empty: their processes ended with them.
pub fn sweep(pods: &Path) {
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
            tracing::warn!(%error, path = %cgroup.display(), "an earlier agent's cgroup stays");
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
    MAKERS.contains(&what)
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
}
