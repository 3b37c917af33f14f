//! Lock files ensure that only one agent manages a given cgroup, and only one a given folder of pins. Only root can open
//! them: whoever can open a file can lock it.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf, absolute},
    process,
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use super::PreflightError;

/// Where the files are; on Kubernetes it is the node's own folder.
const FOLDER: &str = "/run/sidestep";

/// Held until it is dropped, or the process ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock lives as long as the value")] Held);

#[derive(Debug)]
struct Held {
    _file: File,
    path: PathBuf,
}

/// Makes sure that no other agent looks after the pods in this cgroup.
pub fn lock(cgroup: &Path) -> Result<Lock, PreflightError> {
    let inode = fs::metadata(cgroup).map_err(|error| PreflightError::Cgroup {
        path: cgroup.to_owned(),
        error,
    })?;
    // A cgroup has the same number wherever its hierarchy is mounted.
    let name = format!("cgroup-{}.lock", inode.ino());
    hold(&name, format!("the pods in {}", cgroup.display())).map(Lock)
}

/// A folder of pins that no other agent has, by whatever path it reaches it: two containers may mount one bpffs in two places.
#[derive(Debug)]
pub struct PinFolder {
    path: PathBuf,
    /// The folder need not be there yet, nor the bpffs. Until it is, its path is locked.
    _by_path: Held,
    /// The folder that is there, by its file system and inode number.
    by_inode: Option<((u64, u64), Held)>,
}

impl PinFolder {
    /// Makes sure that no other agent has its pins there. Changes nothing.
    pub fn lock(path: &Path) -> Result<Self, PreflightError> {
        let name = format!("pins{}.lock", escaped(path));
        let mut folder = Self {
            path: path.to_owned(),
            _by_path: hold(&name, format!("the pins in {}", path.display()))?,
            by_inode: None,
        };
        folder.lock_inode()?;
        Ok(folder)
    }

    /// Makes the folder if it is not there, and makes sure that it is this agent's. To be called before anything is pinned,
    /// and again where somebody may have removed it.
    pub fn claim(&mut self) -> Result<(), PreflightError> {
        fs::create_dir_all(&self.path).map_err(|error| PreflightError::Bpffs {
            path: self.path.clone(),
            error,
        })?;
        self.lock_inode()
    }

    fn lock_inode(&mut self) -> Result<(), PreflightError> {
        let found = match fs::metadata(&self.path) {
            Ok(found) => (found.dev(), found.ino()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                return Err(PreflightError::Bpffs {
                    path: self.path.clone(),
                    error,
                });
            }
        };
        if self
            .by_inode
            .as_ref()
            .is_some_and(|(held, _)| *held == found)
        {
            return Ok(());
        }
        let (device, inode) = found;
        let name = format!("pin-folder-{device}-{inode}.lock");
        let held = hold(&name, format!("the pins in {}", self.path.display()))?;
        self.by_inode = Some((found, held));
        Ok(())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn hold(name: &str, what: String) -> Result<Held, PreflightError> {
    let path = Path::new(FOLDER).join(name);
    let failed = |error: io::Error| PreflightError::Lock {
        path: path.clone(),
        error,
    };
    fs::create_dir_all(FOLDER).map_err(failed)?;
    loop {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut pid = String::new();
                // It may be writing just now.
                let _unknown = file.read_to_string(&mut pid);
                let pid = if pid.is_empty() { "unknown" } else { &pid }.to_owned();
                return Err(PreflightError::NotAlone { what, pid });
            }
            Err(error) => return Err(failed(error.into())),
        }
        // Who had it removes it: then a lock on the old file keeps nobody out.
        let own = file.metadata().map_err(failed)?.ino();
        if fs::metadata(&path).is_ok_and(|now| now.ino() == own) {
            let written = file
                .set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| write!(file, "{}", process::id()));
            if let Err(error) = written {
                // A full disk. It is locked all the same.
                tracing::warn!(path = %path.display(), %error, "another agent will not learn which process holds this lock");
            }
            return Ok(Held { _file: file, path });
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // An empty file that stays locks nobody out.
        let _stays = fs::remove_file(&self.path);
    }
}

/// A path as a part of a file's name.
fn escaped(path: &Path) -> String {
    let path = absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut name = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' => name.push('-'),
            b'.' | b'_' => name.push(char::from(*byte)),
            _ if byte.is_ascii_alphanumeric() => name.push(char::from(*byte)),
            // A string takes all there is.
            _ => drop(write!(name, "%{byte:02x}")),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_paths_never_have_the_same_name() {
        assert_eq!(
            escaped(Path::new("/sys/fs/bpf/sidestep")),
            "-sys-fs-bpf-sidestep"
        );
        assert_eq!(escaped(Path::new("/a-b")), "-a%2db");
        assert_eq!(escaped(Path::new("/a%2db")), "-a%252db");
    }
}
