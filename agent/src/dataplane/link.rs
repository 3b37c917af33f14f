//! A pinned link: made, taken over with new code, watched, and taken away. The BPF library has no in-place update and
//! detaches when it drops a link, and a link must do neither.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use super::{Cookie, DataplaneError, Hook};
use crate::sys;

/// A link and its pin.
#[derive(Debug)]
pub(crate) struct Link {
    fd: OwnedFd,
    path: PathBuf,
}

impl Link {
    /// Takes over the pinned link if it is attached to `target`, and gives it `program`; else attaches and pins anew.
    pub(crate) fn establish(
        hook: Hook,
        program: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        target_id: u64,
        path: PathBuf,
    ) -> Result<Self, DataplaneError> {
        if let Ok(link) = Self::open(path.clone()) {
            if link.target() == Some(target_id) {
                sys::link_update(&link.fd, program).map_err(|error| DataplaneError::Attach {
                    hook: hook.name,
                    error,
                })?;
                return Ok(link);
            }
            // Detached, or attached to something that is gone.
            link.unpin()?;
        }
        Self::create(hook, program, target, path)
    }

    /// Opens a pinned link.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        let fd = sys::obj_get(&path)?;
        Ok(Self { fd, path })
    }

    fn create(
        hook: Hook,
        program: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        path: PathBuf,
    ) -> Result<Self, DataplaneError> {
        let fd =
            sys::link_create(program, target, hook.at).map_err(|error| DataplaneError::Attach {
                hook: hook.name,
                error,
            })?;
        let link = Self { fd, path };
        link.pin()?;
        Ok(link)
    }

    /// What it is attached to: a cgroup's or a namespace's inode number. `None` once that is gone or it was detached.
    pub(crate) fn target(&self) -> Option<u64> {
        // The kernel shows a link's target here; the field depends on the kind of link.
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd())).ok()?;
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        field("cgroup_id:")
            .or_else(|| field("netns_ino:"))
            .filter(|id| *id != 0)
    }

    /// Restores the pin if somebody removed it; whether that was so.
    pub(crate) fn repin(&self) -> Result<bool, DataplaneError> {
        if self.path.exists() {
            return Ok(false);
        }
        self.pin()?;
        Ok(true)
    }

    fn pin(&self) -> Result<(), DataplaneError> {
        sys::obj_pin(&self.fd, &self.path).map_err(|error| DataplaneError::Pin {
            path: self.path.clone(),
            error,
        })
    }

    fn unpin(&self) -> Result<(), DataplaneError> {
        remove_file(&self.path)
    }

    /// Detaches it: without pin and descriptor the link is gone.
    pub(crate) fn remove(self) -> Result<(), DataplaneError> {
        self.unpin()
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The namespaces that live and have an inbound link pinned, whatever version of the agent pinned it.
pub fn pinned_pods(pin: &Path) -> io::Result<Vec<Cookie>> {
    let versions = match fs::read_dir(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        versions => versions?,
    };
    let mut living = Vec::new();
    for version in versions {
        let links = fs::read_dir(version?.path().join("pods"));
        for entry in links.into_iter().flatten().flatten() {
            let cookie = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let Some(cookie) = cookie
                && Link::open(entry.path())?.target().is_some()
            {
                living.push(cookie);
            }
        }
    }
    living.sort_unstable();
    Ok(living)
}

/// Removes a pin. Already gone is fine.
pub(crate) fn remove_file(path: &Path) -> Result<(), DataplaneError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(DataplaneError::Pin {
            path: path.to_owned(),
            error: e,
        }),
        _ => Ok(()),
    }
}
