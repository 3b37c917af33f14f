//! What the running kernel says to an MPTCP listener in a sockhash. Asked by the self-test alone, in its own cgroup.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use super::{
    Shortcut, ShortcutError,
    error::file,
    maps::error,
    object::{self, ON_MPTCP},
};
use crate::sys;

/// Attached as long as it lives.
pub(super) struct Question(OwnedFd);

impl Shortcut {
    /// From now on the kernel is asked when somebody listens on the self-test's port.
    pub(super) fn ask_about_mptcp(&mut self, cgroup: &Path) -> Result<Question, ShortcutError> {
        object::load(&mut self.object, ON_MPTCP)?;
        let program = object::program(&self.object, ON_MPTCP)?;
        let folder = File::open(cgroup).map_err(|error| file(cgroup, error))?;
        let link = sys::link_create(program, folder.as_fd(), sys::AttachType::SockOps);
        link.map(Question).map_err(|error| ShortcutError::Attach {
            what: ON_MPTCP,
            error,
        })
    }

    /// What it said, as an error's number. 0 where nobody has listened yet, 1 where it took the listener.
    pub(super) fn mptcp_answer(&self, question: &Question) -> Result<u64, ShortcutError> {
        let Question(_attached) = question;
        let answer = self.maps.mptcp_answer.get(&0, 0);
        answer
            .map(i64::unsigned_abs)
            .map_err(|e| error("MPTCP_ANSWER", &e))
    }
}
