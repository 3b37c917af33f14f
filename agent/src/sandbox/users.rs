//! Whose ids a policy's are: those of the user namespace that owns the pod's network namespace, as iptables takes them
//! (`xt_owner`). Containers may make further user namespaces; they do not own the pod's network.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use sidestep_kernel::netns::{Namespace, NetnsError};

use crate::rules::Users;

/// The owner's ids, if it is not the agent's own user namespace, which is the node's: no other may load the programs. One
/// of the `processes` must be in it.
pub(super) fn of(
    namespace: &Namespace,
    processes: impl FnOnce() -> Vec<i32>,
) -> Result<Option<Users>, NetnsError> {
    // A kernel may have none of them, and answers no question about them.
    let Some(own) = inode(Path::new("/proc/self/ns/user")) else {
        return Ok(None);
    };
    let owner = namespace.user_namespace()?;
    if owner == own {
        return Ok(None);
    }
    let folders = processes().into_iter().map(|pid| format!("/proc/{pid}"));
    let mut inside = folders
        .map(PathBuf::from)
        .filter(|folder| inode(&folder.join("ns/user")) == Some(owner));
    // A process that ends meanwhile is skipped.
    let users = inside.find_map(|folder| read(&folder).ok());
    let missing = || NetnsError::Io {
        path: namespace.path().to_owned(),
        error: io::Error::other(
            "no process is in the user namespace that owns it, so the pod's ids cannot be told",
        ),
    };
    users.ok_or_else(missing).map(Some)
}

fn read(process: &Path) -> io::Result<Users> {
    let uids = fs::read_to_string(process.join("uid_map"))?;
    let gids = fs::read_to_string(process.join("gid_map"))?;
    Users::parse(&uids, &gids).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn inode(path: &Path) -> Option<u64> {
    Some(fs::metadata(path).ok()?.ino())
}
