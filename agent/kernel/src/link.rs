//! A program's link to a hook, pinned: made, taken over with new code, watched, and taken away. The BPF library has no
//! in-place update and detaches when it drops a link, and a link must do neither.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::programs::{ProgramInfo, loaded_programs};
use thiserror::Error;

use crate::{
    cgroups::{self, Whereabouts},
    sys::{self, AttachType},
};

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
    /// The pinned link is attached to something else that lives. Taking it away would end the interception there.
    #[error(
        "cannot attach {hook} to {wanted}: its pin {} is a link that is attached to {attached}. Choose another folder with \
         --pin; or, where no pod depends on {attached} any more, take its programs away with `sidestep-agent uninstall`, \
         or remove that cgroup",
        .path.display()
    )]
    Elsewhere {
        /// The hook's name.
        hook: &'static str,
        /// The pin.
        path: PathBuf,
        /// Where the link is attached.
        attached: String,
        /// Where it should be.
        wanted: String,
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

/// A row of a table of hooks.
pub const fn hook(name: &'static str, program: &'static str, at: AttachType) -> Hook {
    Hook { name, program, at }
}

/// What a link is to be attached to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// It, open.
    pub open: BorrowedFd<'a>,
    /// Its inode number.
    pub id: u64,
    /// Where it is, if it is a cgroup; else it is a network namespace.
    pub cgroup: Option<&'a Path>,
}

impl Target<'_> {
    /// What has this id, if it lives or may live: another one of the same kind.
    fn living(&self, id: u64) -> Option<String> {
        let Some(near) = self.cgroup else {
            // Its link would have no target otherwise.
            return Some(format!("network namespace {id}"));
        };
        match cgroups::find(id, near) {
            Whereabouts::Here(path) => Some(format!("cgroup {}", path.display())),
            Whereabouts::Unknown => Some(format!("cgroup {id}, which the agent does not see")),
            // Kubelet leaves the folder of a cgroup that it does not use any more. And sockets that are still open keep a removed
            // cgroup's links attached.
            Whereabouts::Empty | Whereabouts::Gone => None,
        }
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cgroup {
            Some(path) => write!(f, "cgroup {}", path.display()),
            None => write!(f, "network namespace {}", self.id),
        }
    }
}

/// A link and its pin.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
    path: PathBuf,
}

impl Link {
    /// Takes over the pinned link if it is attached to `target`, and gives it `program`; else attaches and pins anew. A
    /// link that is attached to something else that lives stays as it is, and so does one of which nothing can be learnt:
    /// each is an error.
    pub fn establish(
        hook: Hook,
        program: BorrowedFd<'_>,
        target: Target<'_>,
        path: PathBuf,
    ) -> Result<Self, LinkError> {
        if let Some(link) = Self::open(&path)? {
            let id = link.target()?;
            if id == Some(target.id) {
                sys::link_update(&link.fd, program).map_err(|error| LinkError::Attach {
                    hook: hook.name,
                    error,
                })?;
                return Ok(link);
            }
            if let Some(attached) = id.and_then(|id| target.living(id)) {
                return Err(LinkError::Elsewhere {
                    hook: hook.name,
                    path,
                    attached,
                    wanted: target.to_string(),
                });
            }
            // Detached, or attached to something that is gone.
            link.unpin()?;
        }
        Self::create(hook, program, target.open, path)
    }

    /// Opens a pinned link, if there is one.
    pub fn open(path: &Path) -> Result<Option<Self>, LinkError> {
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
        let fd = attach(hook, program, target)?;
        let link = Self { fd, path };
        link.pin()?;
        Ok(link)
    }

    /// What it is attached to: a cgroup's or a namespace's inode number. `None` once that is gone or it was detached, and
    /// only where the kernel says so: what cannot be read is an error, not the end of a link.
    pub fn target(&self) -> Result<Option<u64>, LinkError> {
        let id = sys::link_target(&self.fd).map_err(|error| pin_error(&self.path, error))?;
        Ok((id != 0).then_some(id))
    }

    /// Its pin.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Restores the pin if somebody removed it; whether that was so.
    pub fn repin(&self) -> Result<bool, LinkError> {
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
    pub fn remove(self) -> Result<(), LinkError> {
        self.unpin()
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Attaches a program for as long as the descriptor is open.
pub(crate) fn attach(
    hook: Hook,
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
) -> Result<OwnedFd, LinkError> {
    let link = sys::link_create(program, target, hook.at);
    link.map_err(|error| LinkError::Attach {
        hook: hook.name,
        error,
    })
}

/// Removes a pin. Already gone is fine.
pub fn remove_file(path: &Path) -> Result<(), LinkError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(pin_error(path, error)),
        _ => Ok(()),
    }
}

/// What became of a pin.
pub fn pin_error(path: &Path, error: io::Error) -> LinkError {
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
