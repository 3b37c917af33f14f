//! Network namespaces: found by name or path, entered for a step and left again, never held open for longer.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, FromRawFd as _},
        unix::{fs::MetadataExt, net::UnixDatagram},
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

use libc::c_int;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use thiserror::Error;

/// Where `ip netns` keeps names.
const NAMED: &str = "/run/netns";
/// `statfs` type of namespace files (`NSFS_MAGIC`).
const NSFS: u64 = 0x6e73_6673;

/// Why a namespace cannot be used.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// There is nothing there.
    #[error(
        "network namespace {0} does not exist: make it first (`ip netns add`), or correct its name"
    )]
    Missing(PathBuf),
    /// There is something else there.
    #[error("{0} is not a network namespace")]
    NotOne(PathBuf),
    /// It is the host's, or this process's own.
    #[error("{0} is the host's own network namespace, which is never entered")]
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

/// A network namespace's cookie: the kernel gives each another number, until the next boot.
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

    /// The inode number of the user namespace that owns it, which `/proc/<pid>/ns/user` shows too.
    pub fn user_namespace(&self) -> Result<u64, NetnsError> {
        // SAFETY: the request takes no argument.
        let answer = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::NS_GET_USERNS) };
        if answer < 0 {
            return Err(self.error(io::Error::last_os_error()));
        }
        // SAFETY: the kernel just made this descriptor for us.
        let owner = unsafe { File::from_raw_fd(answer) };
        Ok(owner.metadata().map_err(|error| self.error(error))?.ino())
    }

    /// Its cookie: unique until the next boot, and what BPF programs know it by.
    pub fn cookie(&self) -> Result<Cookie, NetnsError> {
        self.enter(own_cookie)?.map_err(|error| self.error(error))
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

/// The cookie of the calling thread's network namespace (`SO_NETNS_COOKIE`, Linux 5.14).
pub fn own_cookie() -> io::Result<u64> {
    const SO_NETNS_COOKIE: c_int = 71;
    let socket = UnixDatagram::unbound()?;
    let mut cookie = 0_u64;
    let mut len: libc::socklen_t = 8;
    // SAFETY: a live descriptor, and a buffer of the length given.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if answer == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The cookie of the host's own network namespace, whichever the calling thread is in.
pub fn host_cookie() -> Option<Cookie> {
    static HOST: OnceLock<Option<Cookie>> = OnceLock::new();
    *HOST.get_or_init(|| {
        let host = File::open("/proc/1/ns/net").ok()?;
        cookie_of(&host).or_else(|_| own_cookie()).ok()
    })
}

fn cookie_of(namespace: &File) -> io::Result<Cookie> {
    let home = File::open("/proc/thread-self/ns/net")?;
    move_to(namespace)?;
    let _home = Home(home);
    own_cookie()
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
            // Whatever this thread did next would be done to that namespace.
            eprintln!("cannot leave a network namespace: {error}");
            std::process::abort();
        }
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}
