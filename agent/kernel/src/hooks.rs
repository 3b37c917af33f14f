//! A table of hooks on one cgroup: attached in its order, taken over from an earlier process by their pins, and restored
//! where somebody took them away.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use crate::{
    link::{Hook, Link, LinkError, Target, attach, exclusive_above, pin_error},
    object::Object,
    repaired::{Lost, Repaired},
};

/// The hooks, and what keeps them there.
pub struct Hooks {
    table: &'static [Hook],
    cgroup: PathBuf,
    links: Links,
}

enum Links {
    /// They outlive the process.
    Pinned { folder: PathBuf, links: Vec<Link> },
    /// They end with the value.
    Held(#[expect(dead_code, reason = "a link lives as long as its descriptor")] Vec<OwnedFd>),
}

impl Hooks {
    /// Attaches the programs of a table, which must be loaded. With a folder each link is pinned there under its hook's
    /// name, and a link that is pinned there already gets the new program.
    pub fn attach(
        object: &Object,
        table: &'static [Hook],
        cgroup: &Path,
        folder: Option<&Path>,
    ) -> Result<Self, LinkError> {
        let (open, id) = open(cgroup)?;
        let links = if let Some(folder) = folder {
            let link = |hook: &Hook| establish(object, *hook, (cgroup, &open, id), folder);
            Links::Pinned {
                folder: folder.to_owned(),
                links: table.iter().map(link).collect::<Result<_, _>>()?,
            }
        } else {
            let link = |hook: &Hook| attach(*hook, program(object, *hook)?, open.as_fd());
            Links::Held(table.iter().map(link).collect::<Result<_, _>>()?)
        };
        Ok(Self {
            table,
            cgroup: cgroup.to_owned(),
            links,
        })
    }

    /// Whether all of a table are pinned in a folder and attached to this cgroup.
    pub fn are_attached(
        table: &'static [Hook],
        folder: &Path,
        cgroup: &Path,
    ) -> Result<bool, LinkError> {
        let (_, id) = open(cgroup)?;
        for hook in table {
            let link = Link::open(&folder.join(hook.name))?;
            if link.map_or(Ok(None), |link| link.target())? != Some(id) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Restores links and their pins, as far as it can.
    pub fn repair(&mut self, object: &Object, done: &mut Repaired) {
        let Links::Pinned { folder, links } = &mut self.links else {
            return;
        };
        for (link, hook) in links.iter_mut().zip(self.table) {
            match link.target() {
                Err(error) => done.unseen.push(error),
                Ok(Some(_)) => match link.repin() {
                    Ok(true) => done.restored.push(Lost::LinkPin(hook.name)),
                    Ok(false) => {}
                    Err(error) => done.failed.push(error),
                },
                // Links end with their cgroup; one of the same name may have taken its place.
                Ok(None) => {
                    let anew = open(&self.cgroup).and_then(|(open, id)| {
                        establish(object, *hook, (&self.cgroup, &open, id), folder)
                    });
                    match anew {
                        Ok(anew) => {
                            *link = anew;
                            done.restored.push(Lost::Link(hook.name));
                        }
                        Err(error) => done.failed.push(error),
                    }
                }
            }
        }
    }

    /// Detaches all of them, those that were attached last first.
    pub fn remove(self) -> Result<(), LinkError> {
        match self.links {
            Links::Pinned { links, .. } => links.into_iter().rev().try_for_each(Link::remove),
            Links::Held(_) => Ok(()),
        }
    }
}

fn establish(
    object: &Object,
    hook: Hook,
    (path, cgroup, id): (&Path, &File, u64),
    folder: &Path,
) -> Result<Link, LinkError> {
    let target = Target {
        open: cgroup.as_fd(),
        id,
        cgroup: Some(path),
    };
    let program = program(object, hook)?;
    let link = Link::establish(hook, program, target, folder.join(hook.name));
    link.map_err(|failed| match &failed {
        LinkError::Attach { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
            exclusive_above(path, hook).unwrap_or(failed)
        }
        _ => failed,
    })
}

fn program(object: &Object, hook: Hook) -> Result<BorrowedFd<'_>, LinkError> {
    let program = object.program(hook.program);
    program.map_err(|error| LinkError::Attach {
        hook: hook.name,
        error: io::Error::other(error),
    })
}

/// A cgroup, and its number.
fn open(cgroup: &Path) -> Result<(File, u64), LinkError> {
    let failed = |error| pin_error(cgroup, error);
    let open = File::open(cgroup).map_err(failed)?;
    let id = open.metadata().map_err(failed)?.ino();
    Ok((open, id))
}
