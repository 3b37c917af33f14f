//! What the running kernel says to an MPTCP listener in a sockhash. Asked by the self-test alone, in its own cgroup.

use std::path::Path;

use sidestep_kernel::{
    AttachType,
    hooks::Hooks,
    link::{Hook, hook},
};

use super::{Shortcut, ShortcutError, object::ON_MPTCP};

static HOOKS: [Hook; 1] = [hook("sock_ops", ON_MPTCP, AttachType::SockOps)];

/// Attached as long as it lives.
pub(super) struct Question(Hooks);

impl Shortcut {
    /// From now on the kernel is asked when somebody listens on the self-test's port.
    pub(super) fn ask_about_mptcp(&mut self, cgroup: &Path) -> Result<Question, ShortcutError> {
        self.object.load(ON_MPTCP)?;
        let attached = Hooks::attach(&self.object, &HOOKS, cgroup, None)?;
        Ok(Question(attached))
    }

    /// What it said, as an error's number. 0 where nobody has listened yet, 1 where it took the listener.
    pub(super) fn mptcp_answer(&self, question: &Question) -> Result<u64, ShortcutError> {
        let Question(_attached) = question;
        Ok(self.maps.mptcp_answer.get(0)?.unsigned_abs())
    }
}
