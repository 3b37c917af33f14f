//! A pod's connections, for people: what the kernel lists, joined with what the programs keep with each socket.

mod tell;

use sidestep_kernel::netns::NetnsError;

use self::tell::Known;
use super::Reconciler;
use crate::{
    dataplane::Dataplane,
    pods::wanted::PodName,
    sandbox::{Node, Sandbox},
    status::{Flows, NoFlows},
};

/// Most sockets that are listed. It takes the agent's thread some twenty milliseconds.
const MOST: usize = 4096;

impl<D: Dataplane, N: Node> Reconciler<D, N> {
    /// The connections of a pod, as they are now.
    pub fn flows(&self, name: &PodName) -> Result<Flows, NoFlows> {
        let pod = self.pods.get(name).ok_or(NoFlows::NoPod)?;
        let armed = pod.armed.as_ref().ok_or(NoFlows::NotArmed)?;
        let sandbox = self.sandbox_of(armed.cookie).ok_or(NoFlows::NotArmed)?;
        let unseen = |error: NetnsError| NoFlows::Unseen(error.to_string());
        let sockets = sandbox.sockets(&self.dataplane.kept(), MOST);
        let known = Known {
            rules: &armed.rules,
            shortcut: &self.dataplane.shortcut(),
            beside: &|ip| self.dataplane.beside(armed.cookie, ip),
            redirected_by: &|end| self.dataplane.redirected_by(end),
        };
        Ok(known.tell(&sockets.map_err(unseen)?))
    }
}
