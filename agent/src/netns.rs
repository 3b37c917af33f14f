//! Network namespaces: found by name or path, entered for a step and left again, never held open for longer.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use thiserror::Error;

use crate::sys;

/// Where `ip netns` keeps names.
const NAMED: &str = "/run/netns";
/// `statfs` type of namespace files (`NSFS_MAGIC`).
const NSFS: u64 = 0x6e73_6673;

/// Why a namespace cannot be used.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// There is nothing there.
    #[error(
        "network namespace {0} does not exist: make it first (`ip netns add`), or correct the annotation"
    )]
    Missing(PathBuf),
    /// There is something else there.
    #[error("{0} is not a network namespace")]
    NotOne(PathBuf),
    /// Capturing the host's own traffic is never wanted.
    #[error(
        "{0} is the host's own network namespace: pods with hostNetwork have no traffic of their own to capture"
    )]
    Host(PathBuf),
    /// Anything else.
    #[error("network namespace {path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
}

/// A network namespace's cookie: the name of a pod in the kernel.
pub type Cookie = u64;

/// An open network namespace.
#[derive(Debug)]
pub struct Namespace {
    path: PathBuf,
    file: File,
}

impl Namespace {
    /// Opens a namespace by its name under `/run/netns`, or by an absolute path.
    pub fn open(name: &str) -> Result<Self, NetnsError> {
        let path = if name.starts_with('/') {
            PathBuf::from(name)
        } else {
            Path::new(NAMED).join(name)
        };
        let io = |error| NetnsError::Io {
            path: path.clone(),
            error,
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(NetnsError::Missing(path)),
            Err(e) => return Err(io(e)),
        };
        let stat = rustix::fs::fstatfs(&file).map_err(|e| io(e.into()))?;
        if stat.f_type.cast_unsigned() != NSFS {
            return Err(NetnsError::NotOne(path));
        }
        let id = |path: &str| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
        let this = file.metadata().map(|m| (m.dev(), m.ino())).map_err(io)?;
        if [id("/proc/self/ns/net"), id("/proc/1/ns/net")].contains(&Some(this)) {
            return Err(NetnsError::Host(path));
        }
        Ok(Self { path, file })
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its inode number on nsfs, which `/proc/<pid>/ns/net` shows too.
    pub fn inode(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.ino())
    }

    /// Its cookie: unique until the next boot, and what the programs know it by.
    pub fn cookie(&self) -> Result<Cookie, NetnsError> {
        self.enter(sys::netns_cookie)?
            .map_err(|error| self.error(error))
    }

    /// The cookie of an open namespace, whichever: the host's too.
    pub(crate) fn cookie_of(file: &File) -> io::Result<Cookie> {
        let home = File::open("/proc/thread-self/ns/net")?;
        move_to(file)?;
        let _home = Home(home);
        sys::netns_cookie()
    }

    /// Runs `f` in this namespace. The calling thread comes back whatever happens, so nothing else may run on it
    /// meanwhile: `f` must not wait for other tasks.
    pub fn enter<T>(&self, f: impl FnOnce() -> T) -> Result<T, NetnsError> {
        let home = File::open("/proc/thread-self/ns/net").map_err(|e| self.error(e))?;
        move_to(&self.file).map_err(|e| self.error(e))?;
        let _home = Home(home);
        Ok(f())
    }

    fn error(&self, error: io::Error) -> NetnsError {
        NetnsError::Io {
            path: self.path.clone(),
            error,
        }
    }
}

fn move_to(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(
        namespace.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

/// Brings the thread home when it goes out of scope.
struct Home(File);

impl Drop for Home {
    fn drop(&mut self) {
        if let Err(error) = move_to(&self.0) {
            // Whatever this thread did next would be done to the pod.
            eprintln!("cannot leave a pod's network namespace: {error}");
            std::process::abort();
        }
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}
