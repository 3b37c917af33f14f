//! A machine: cgroups for pods and for everything else, and the agent if there is one.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::{Agent, AgentFolders};
use crate::cgroup::Cgroup;

/// What pods of several tests can share: the cgroups, and the agent if there is one.
#[derive(Debug)]
pub(super) struct Machine {
    // Dropped in this order: the agent ends while the cgroup still exists.
    pub(super) agent: OnceLock<Agent>,
    pub(super) folders: AgentFolders,
    pub(super) pods: Cgroup,
    pub(super) world: Cgroup,
    system: Cgroup,
    pub(super) all: Cgroup,
}

impl Machine {
    pub(super) fn new() -> Self {
        Self::with_agent_arguments(&[])
    }

    pub(super) fn with_agent_arguments(arguments: &[&str]) -> Self {
        let all = Cgroup::new("machine");
        let pods = all.child("pods");
        Self {
            agent: OnceLock::new(),
            folders: AgentFolders::new(&pods, arguments),
            pods,
            world: all.child("world"),
            system: all.child("system"),
            all,
        }
    }

    /// The machine that all tests of this process can share. Loading the programs takes a second, so one agent serves
    /// many tests; it ends with the process.
    pub(super) fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let machine = shared.get_or_insert_with(|| {
            // SAFETY: the function may run at exit: it unwinds into nobody.
            unsafe { libc::atexit(end_shared) };
            let machine = Self::new();
            machine.start_agent();
            Arc::new(machine)
        });
        Arc::clone(machine)
    }

    pub(super) fn start_agent(&self) {
        let agent = Agent::start_in(&self.system, &self.folders);
        agent.wait_until_ready();
        self.agent.set(agent).expect("a machine has one agent");
    }
}

static SHARED: Mutex<Option<Arc<Machine>>> = Mutex::new(None);

extern "C" fn end_shared() {
    let machine = SHARED.lock().map(|mut shared| shared.take());
    // A panic must not leave this function, and there is nobody to tell.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(machine)));
}
