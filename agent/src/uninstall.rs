//! Takes everything out of a node's kernel that an agent left there, where no pod depends on it any more.

use std::{
    fs, io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use sidestep_kernel::link::LinkError;
use thiserror::Error;

use crate::{
    dataplane,
    preflight::{PinFolder, PreflightError},
    shortcut,
};

/// Why it is not done.
#[derive(Debug, Error)]
pub enum UninstallError {
    /// It would put everything back.
    #[error("an agent answers on {0}: end it first (on Kubernetes, delete its DaemonSet)")]
    Agent(PathBuf),
    /// One that does not answer yet, or any more, would do so too.
    #[error(transparent)]
    Lock(#[from] PreflightError),
    /// Their connections would go past their proxies.
    #[error(
        "{} pods of this node are armed (network namespace cookies {}): without the programs their connections would go past \
             their proxies. Let plain Istio take over with `sidestep uninstall --roll-back`, then try again",
        .0.len(), list(.0)
    )]
    Armed(Vec<u64>),
    /// What is there cannot be read.
    #[error("{0}; nothing was taken away")]
    Unknown(#[from] LinkError),
    /// Sockets would lose what they have not read.
    #[error(
        "{} stays for now: sockets have bytes in it that they have not read. It is off and nothing of it is attached; \
             once those connections are closed, try again",
        .0.display()
    )]
    Unread(PathBuf),
    /// The shortcut.
    #[error("cannot take the shortcut away: {0}")]
    Shortcut(#[from] shortcut::ShortcutError),
    /// A file on the bpffs.
    #[error("{path}: {error}")]
    Pin {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// Does it. Nothing there is fine.
pub fn run(pin: &Path, socket: &Path) -> Result<(), UninstallError> {
    if UnixStream::connect(socket).is_ok() {
        return Err(UninstallError::Agent(socket.to_owned()));
    }
    // An agent that is about to start does not answer yet.
    let _no_agent = PinFolder::lock(pin)?;
    let failed = |error| UninstallError::Pin {
        path: pin.to_owned(),
        error,
    };
    let armed = dataplane::pinned_pods(pin)?;
    if !armed.is_empty() {
        return Err(UninstallError::Armed(armed));
    }
    let mut unread = None;
    for folder in shortcut::folders(pin).map_err(failed)? {
        if !shortcut::retire(&folder, shortcut::DRAIN)? {
            unread = Some(folder);
        }
    }
    // Links and maps end with their pins.
    match fs::remove_dir_all(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => unread.map_or(Ok(()), |folder| Err(UninstallError::Unread(folder))),
    }
}

fn list(cookies: &[u64]) -> String {
    let cookies: Vec<String> = cookies.iter().map(u64::to_string).collect();
    cookies.join(", ")
}
