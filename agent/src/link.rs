//! A program's link to a hook, pinned: made, taken over with new code, watched, and taken away. The BPF library has no
//! in-place update and detaches when it drops a link, and a link must do neither.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::programs::{ProgramInfo, loaded_programs};
use thiserror::Error;

use crate::sys::{self, AttachType};

/// Why a link cannot be had.
#[derive(Debug, Error)]
pub enum LinkError {
    /// Another program is attached there alone.
    #[error(
        "cannot attach {hook}: program {program} (id {id}) is attached exclusively to cgroup {cgroup}; detach it, or \
         attach it with BPF_F_ALLOW_MULTI"
    )]
    Exclusive {
        /// Ours.
        hook: &'static str,
        /// Theirs.
        program: String,
        /// Its id.
        id: u32,
        /// Where.
        cgroup: PathBuf,
    },
    /// A program cannot be attached.
    #[error("cannot attach {hook}: {error}")]
    Attach {
        /// Which.
        hook: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A file on the bpffs.
    #[error("{path}: {error}")]
    Pin {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// One hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The kernel's name of it, also the pin's.
    pub name: &'static str,
    /// The program's name in the BPF object.
    pub program: &'static str,
    /// Where it attaches.
    pub(crate) at: AttachType,
}

pub(crate) const fn hook(name: &'static str, program: &'static str, at: AttachType) -> Hook {
    Hook { name, program, at }
}

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
    ) -> Result<Self, LinkError> {
        if let Some(link) = Self::open(&path)? {
            if link.target()? == Some(target_id) {
                sys::link_update(&link.fd, program).map_err(|error| LinkError::Attach {
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
    pub(crate) fn open(path: &Path) -> Result<Option<Self>, LinkError> {
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
    ) -> Result<Self, LinkError> {
        let fd = sys::link_create(program, target, hook.at).map_err(|error| LinkError::Attach {
            hook: hook.name,
            error,
        })?;
        let link = Self { fd, path };
        link.pin()?;
        Ok(link)
    }

    /// What it is attached to: a cgroup's or a namespace's inode number. `None` once that is gone or it was detached, and
    /// only where the kernel says so: what cannot be read is an error, not the end of a link.
    pub(crate) fn target(&self) -> Result<Option<u64>, LinkError> {
        let shown = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd()));
        let failed = |error| pin_error(&self.path, error);
        let id = target_in(&shown.map_err(failed)?)
            .ok_or_else(|| failed(io::Error::other("the kernel does not tell its target")))?;
        Ok((id != 0).then_some(id))
    }

    /// Restores the pin if somebody removed it; whether that was so.
    pub(crate) fn repin(&self) -> Result<bool, LinkError> {
        let there = self.path.try_exists();
        if there.map_err(|error| pin_error(&self.path, error))? {
            return Ok(false);
        }
        self.pin()?;
        Ok(true)
    }

    fn pin(&self) -> Result<(), LinkError> {
        sys::obj_pin(&self.fd, &self.path).map_err(|error| pin_error(&self.path, error))
    }

    fn unpin(&self) -> Result<(), LinkError> {
        remove_file(&self.path)
    }

    /// Detaches it: without pin and descriptor the link is gone.
    pub(crate) fn remove(self) -> Result<(), LinkError> {
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

/// Removes a pin. Already gone is fine.
pub(crate) fn remove_file(path: &Path) -> Result<(), LinkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(pin_error(path, error)),
        _ => Ok(()),
    }
}

pub(crate) fn pin_error(path: &Path, error: io::Error) -> LinkError {
    LinkError::Pin {
        path: path.to_owned(),
        error,
    }
}

/// The program that is attached exclusively at or above a cgroup, and so keeps ours out.
pub(crate) fn exclusive_above(cgroup: &Path, hook: Hook) -> Option<LinkError> {
    cgroup.ancestors().find_map(|path| {
        let (ids, flags) = sys::prog_query(File::open(path).ok()?, hook.at).ok()?;
        let id = *ids.first().filter(|_| flags == 0)?;
        let named = |info: &ProgramInfo| info.id() == id;
        let program = loaded_programs().flatten().find(named);
        Some(LinkError::Exclusive {
            hook: hook.name,
            program: program
                .and_then(|info| info.name_as_str().map(ToOwned::to_owned))
                .unwrap_or_default(),
            id,
            cgroup: path.to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
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
}
