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
    /// Takes over the pinned link if it is attached to `target`, and gives it `program`; else attaches and pins anew. A
    /// link of which nothing can be learnt stays as it is, and is an error.
    pub(crate) fn establish(
        hook: Hook,
        program: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
        target_id: u64,
        path: PathBuf,
    ) -> Result<Self, DataplaneError> {
        if let Some(link) = Self::open(&path)? {
            if link.target()? == Some(target_id) {
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

    /// Opens a pinned link, if there is one.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, DataplaneError> {
        match sys::obj_get(path) {
            Ok(fd) => Ok(Some(Self {
                fd,
                path: path.to_owned(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(pin_error(path, error)),
        }
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

    /// What it is attached to: a cgroup's or a namespace's inode number. `None` once that is gone or it was detached, and
    /// only where the kernel says so: what cannot be read is an error, not the end of a link.
    pub(crate) fn target(&self) -> Result<Option<u64>, DataplaneError> {
        let shown = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd()));
        let failed = |error| pin_error(&self.path, error);
        let id = target_in(&shown.map_err(failed)?)
            .ok_or_else(|| failed(io::Error::other("the kernel does not tell its target")))?;
        Ok((id != 0).then_some(id))
    }

    /// Restores the pin if somebody removed it; whether that was so.
    pub(crate) fn repin(&self) -> Result<bool, DataplaneError> {
        let there = self.path.try_exists();
        if there.map_err(|error| pin_error(&self.path, error))? {
            return Ok(false);
        }
        self.pin()?;
        Ok(true)
    }

    fn pin(&self) -> Result<(), DataplaneError> {
        sys::obj_pin(&self.fd, &self.path).map_err(|error| pin_error(&self.path, error))
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

/// The target in what the kernel shows of a link (`/proc/<pid>/fdinfo`): 0 once there is none. The field depends on the
/// kind of link.
fn target_in(shown: &str) -> Option<u64> {
    let field = |name: &str| {
        shown
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    field("cgroup_id:").or_else(|| field("netns_ino:"))
}

/// The namespaces that live and have an inbound link pinned, whatever version of the agent pinned it.
pub fn pinned_pods(pin: &Path) -> Result<Vec<Cookie>, DataplaneError> {
    let mut living = Vec::new();
    for version in entries(pin)? {
        living.extend(living_pods(&version)?);
    }
    living.sort_unstable();
    Ok(living)
}

/// The same, of one version's folder.
pub(super) fn living_pods(version: &Path) -> Result<Vec<Cookie>, DataplaneError> {
    let mut living = Vec::new();
    for path in entries(&version.join("pods"))? {
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(cookie) = name.and_then(|name| name.parse().ok())
            && let Some(link) = Link::open(&path)?
            && link.target()?.is_some()
        {
            living.push(cookie);
        }
    }
    Ok(living)
}

/// What is in a folder; nothing where there is none.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataplaneError> {
    let failed = |error| pin_error(folder, error);
    match fs::read_dir(folder) {
        Err(error)
            if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(failed(error)),
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()).map_err(failed))
            .collect(),
    }
}

/// Removes a pin. Already gone is fine.
pub(crate) fn remove_file(path: &Path) -> Result<(), DataplaneError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(pin_error(path, error)),
        _ => Ok(()),
    }
}

pub(super) fn pin_error(path: &Path, error: io::Error) -> DataplaneError {
    DataplaneError::Pin {
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_target_is_gone_only_where_the_kernel_shows_a_zero() {
        let cgroup = "pos:\t0\nlink_type:\tcgroup\nprog_id:\t7\ncgroup_id:\t42\nattach_type:\t10\n";
        assert_eq!(target_in(cgroup), Some(42));
        let ended = "link_type:\tnetns\nnetns_ino:\t0\nattach_type:\t36\n";
        assert_eq!(target_in(ended), Some(0));
        assert_eq!(target_in("pos:\t0\nflags:\t02\n"), None);
        assert_eq!(target_in(""), None);
    }

    #[test]
    fn what_is_no_link_is_an_error_and_not_a_link_that_ended() {
        let file = File::open("/proc/self/exe").expect("a file");
        let link = Link {
            fd: file.into(),
            path: "/pins/7".into(),
        };
        let error = link.target().expect_err("no target");
        assert!(error.to_string().starts_with("/pins/7: "), "{error}");
    }

    #[test]
    fn a_folder_that_is_not_there_holds_nothing_and_one_that_cannot_be_read_is_an_error() {
        assert!(entries(Path::new("/nowhere/pods")).is_ok_and(|all| all.is_empty()));
        assert!(entries(Path::new("/proc/self/exe/\0")).is_err());
    }
}
