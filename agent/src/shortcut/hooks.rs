//! The shortcut's two hooks on the pods' cgroup: attached, taken over from an earlier agent, and looked after.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use aya::Ebpf;

use super::{ShortcutError, error::file, left, maps, object};
use crate::{
    link::{Hook, Link, hook},
    sys,
};

/// Who marks an end is there before who makes one.
const HOOKS: [Hook; 2] = [
    hook(left::GUARD, object::ON_OPTION, sys::AttachType::Setsockopt),
    hook("sock_ops", object::ON_CONNECTION, sys::AttachType::SockOps),
];

/// The hooks, and what keeps them there.
pub(super) struct Hooks {
    cgroup: PathBuf,
    pins: Option<Pins>,
    // Kept: without pins the links end with them.
    links: Vec<OwnedFd>,
}

/// What outlives the agent.
struct Pins {
    folder: PathBuf,
    links: Vec<Link>,
    maps: Vec<(&'static str, OwnedFd)>,
}

/// What [`Hooks::repair`] found.
#[derive(Debug, Default)]
pub(super) struct Repaired {
    /// What was lost.
    pub(super) what: Vec<String>,
    /// For a while nobody saw what happened to sockets.
    pub(super) blind: bool,
}

impl Hooks {
    /// Attaches both, pinned if there is a folder; links that an earlier agent pinned there get these programs.
    pub(super) fn attach(
        object: &Ebpf,
        cgroup: &Path,
        pins: Option<&Path>,
    ) -> Result<Self, ShortcutError> {
        let mut hooks = Self {
            cgroup: cgroup.to_owned(),
            pins: None,
            links: Vec::new(),
        };
        let (folder, id) = open(cgroup)?;
        let Some(pins) = pins else {
            for hook in HOOKS {
                let program = object::program(object, hook.program)?;
                let link = sys::link_create(program, folder.as_fd(), hook.at);
                hooks.links.push(link.map_err(|error| lost(hook, error))?);
            }
            return Ok(hooks);
        };
        let links: Result<_, _> = HOOKS
            .iter()
            .map(|hook| establish(object, *hook, &folder, id, pins))
            .collect();
        let maps = maps::NAMES.iter().map(|name| {
            let path = pins.join(name);
            let map = sys::obj_get(&path).map_err(|error| file(&path, error))?;
            Ok((*name, map))
        });
        hooks.pins = Some(Pins {
            folder: pins.to_owned(),
            links: links?,
            maps: maps.collect::<Result<_, _>>()?,
        });
        Ok(hooks)
    }

    /// Whether both are pinned in a folder and attached to this cgroup, so that nothing was missed.
    pub(super) fn are_attached(folder: &Path, cgroup: &Path) -> Result<bool, ShortcutError> {
        let (_, id) = open(cgroup)?;
        for hook in HOOKS {
            let link = Link::open(&folder.join(hook.name)).map_err(|error| other(hook, &error))?;
            let target = link.map_or(Ok(None), |link| link.target());
            if target.map_err(|error| other(hook, &error))? != Some(id) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where everything is pinned.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.pins.as_ref().map(|pins| pins.folder.as_path())
    }

    /// Restores what somebody took away: links, pins of links, pins of maps.
    pub(super) fn repair(&mut self, object: &Ebpf) -> Result<Repaired, ShortcutError> {
        let mut repaired = Repaired::default();
        let Some(Pins {
            folder,
            links,
            maps,
        }) = &mut self.pins
        else {
            return Ok(repaired);
        };
        fs::create_dir_all(&*folder).map_err(|error| file(folder, error))?;
        for (link, hook) in links.iter_mut().zip(HOOKS) {
            let target = match link.target() {
                Ok(target) => target,
                Err(error) => {
                    tracing::warn!(%error, hook = hook.name, "it is not seen whether the shortcut is attached");
                    continue;
                }
            };
            if target.is_none() {
                // Links end with their cgroup; one of the same name may have taken its place.
                let (cgroup, id) = open(&self.cgroup)?;
                *link = establish(object, hook, &cgroup, id, folder)?;
                repaired.blind = true;
                let what = format!("the shortcut's link of {}", hook.name);
                repaired.what.push(what);
            } else if link.repin().map_err(|error| other(hook, &error))? {
                let what = format!("pin of the shortcut's link {}", hook.name);
                repaired.what.push(what);
            }
        }
        for (name, map) in maps {
            let path = folder.join(*name);
            let there = path.try_exists().map_err(|error| file(&path, error))?;
            if !there {
                sys::obj_pin(&*map, &path).map_err(|error| file(&path, error))?;
                repaired
                    .what
                    .push(format!("pin of the shortcut's map {name}"));
            }
        }
        Ok(repaired)
    }
}

fn establish(
    object: &Ebpf,
    hook: Hook,
    cgroup: &File,
    id: u64,
    pins: &Path,
) -> Result<Link, ShortcutError> {
    let program = object::program(object, hook.program)?;
    let link = Link::establish(hook, program, cgroup.as_fd(), id, pins.join(hook.name));
    link.map_err(|error| other(hook, &error))
}

/// The pods' cgroup, and its number.
fn open(cgroup: &Path) -> Result<(File, u64), ShortcutError> {
    let folder = File::open(cgroup).map_err(|error| file(cgroup, error))?;
    let metadata = folder.metadata().map_err(|error| file(cgroup, error))?;
    Ok((folder, metadata.ino()))
}

fn lost(hook: Hook, error: io::Error) -> ShortcutError {
    ShortcutError::Attach {
        what: hook.name,
        error,
    }
}

fn other(hook: Hook, error: &dyn std::error::Error) -> ShortcutError {
    lost(hook, io::Error::other(error.to_string()))
}
