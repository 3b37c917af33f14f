//! Cgroups of the v2 hierarchy by their ids, which are their inode numbers.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// Of the hierarchy's root alone the kernel does not say whether anybody is in it.
const EVENTS: &str = "cgroup.events";

/// What became of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// There are processes in it, or below.
    Here(PathBuf),
    /// There is no process in it, nor below.
    Empty,
    /// The whole hierarchy is seen, and it is not there.
    Gone,
    /// It may be in a part of the hierarchy that this process does not see.
    Unknown,
}

/// Looks for a cgroup in the hierarchy that `near` is in, as far up as that is mounted here.
pub fn find(id: u64, near: &Path) -> Whereabouts {
    let Some(top) = top(near) else {
        return Whereabouts::Unknown;
    };
    match search(id, &top) {
        Ok(Some(path)) if is_empty(&path) => Whereabouts::Empty,
        Ok(Some(path)) => Whereabouts::Here(path),
        // A cgroup namespace, or a container's mount, shows a part of it.
        Ok(None) if top.join(EVENTS).exists() => Whereabouts::Unknown,
        Ok(None) => Whereabouts::Gone,
        Err(_) => Whereabouts::Unknown,
    }
}

fn is_empty(cgroup: &Path) -> bool {
    let events = fs::read_to_string(cgroup.join(EVENTS));
    events.is_ok_and(|events| events.lines().any(|line| line == "populated 0"))
}

/// The highest folder of the file system that a folder is in.
fn top(near: &Path) -> Option<PathBuf> {
    let near = fs::canonicalize(near).ok()?;
    let device = fs::metadata(&near).ok()?.dev();
    let same = |path: &&Path| fs::metadata(path).is_ok_and(|it| it.dev() == device);
    near.ancestors().take_while(same).last().map(Path::to_owned)
}

fn search(id: u64, folder: &Path) -> io::Result<Option<PathBuf>> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // Cgroups come and go meanwhile.
        let Some(found) = present(fs::metadata(&folder))? else {
            continue;
        };
        if found.ino() == id {
            return Ok(Some(folder));
        }
        for entry in present(fs::read_dir(&folder))?.into_iter().flatten() {
            let Some(entry) = present(entry)? else {
                continue;
            };
            if present(entry.file_type())?.is_some_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    Ok(None)
}

/// What is there; `None` where it has gone.
fn present<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV) => Ok(None),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a file in it says no more of a hierarchy than that it is not its root.
    #[test]
    fn a_folder_is_found_by_its_number_and_what_is_not_seen_is_not_gone() {
        let proc = Path::new("/proc/self/fdinfo");
        let number = fs::metadata(proc).expect("proc is mounted").ino();
        let top = top(proc).expect("a mount point");
        assert_eq!(top, Path::new("/proc"));
        let here = search(number, &fs::canonicalize("/proc/self").expect("a folder"));
        assert!(here.is_ok_and(|path| path.is_some_and(|path| path.ends_with("fdinfo"))));
        assert_eq!(find(1, Path::new("/nowhere")), Whereabouts::Unknown);
    }
}
