//! A pod may have a share of the captured connections that a node remembers. Of those that it has, some may have ended without
//! the programs' knowledge: another program took the callback away that tells them, or their link was lost for a while. Such
//! a connection would keep its place for good, so where a pod has many they are compared with the sockets that there are.

use std::{collections::HashSet, time::Instant};

use sidestep_ebpf_common::{
    FlowKey, Row,
    flow::{FLOW_SHARE, MOST_OF_ONE},
};
use sidestep_kernel::netns::{Cookie, NetnsError};

use super::{PodEvent, Reconciler};
use crate::{
    dataplane::{Dataplane, DataplaneError},
    rules::addr,
    sandbox::{Node, Sandbox},
};

/// The rows by which what a program asks for is refused, though its proxy listens.
const REFUSED: [Row; 2] = [Row::OutFull, Row::RawRefused];

/// Who has fewer is not looked at: what is wrong there harms nobody, even in each of 256 pods.
const MANY: i64 = FLOW_SHARE / 32;
/// Most sockets that are looked at. Twice the share: a program may also connect to the proxy's ports by itself.
const MOST: usize = 2 * MOST_OF_ONE;

impl<D: Dataplane, N: Node> Reconciler<D, N> {
    /// Forgets what ended unseen, and tells of what was refused; not too often.
    pub(super) fn look_at_flows(&mut self, now: Instant) -> Result<(), DataplaneError> {
        if self.flows_due.is_some_and(|due| now < due) {
            return Ok(());
        }
        self.flows_due = Some(now + self.mode.look);
        self.look_at_counts();
        let mut open = self.dataplane.open()?;
        let flows: i64 = open.values().sum();
        self.occupied = (open.len(), usize::try_from(flows).unwrap_or(0));
        open.retain(|_, count| *count >= MANY);
        if open.is_empty() {
            return Ok(());
        }
        // Before the sockets are looked at: one that is made meanwhile is in neither.
        let mut remembered = self.dataplane.remembered(&open.keys().copied().collect());
        for (cookie, counted) in open {
            let flows = remembered.remove(&cookie).unwrap_or_default();
            let there = i64::try_from(flows.len()).unwrap_or(i64::MAX);
            let Some(sandbox) = self.sandbox_of(cookie) else {
                continue; // a pod without processes, or none any more: looked for again, and let go in the end
            };
            match ended(cookie, &sandbox, flows) {
                Ok(ended) => {
                    if !ended.is_empty() {
                        tracing::warn!(
                            cookie,
                            count = ended.len(),
                            "removed the flows of connections whose end was not reported"
                        );
                    }
                    self.dataplane.forget(cookie, &ended, counted - there)?;
                }
                Err(error) => {
                    tracing::warn!(cookie, %error, "could not list a pod's sockets; its flows stay until the next check");
                }
            }
        }
        Ok(())
    }

    pub(super) fn sandbox_of(&self, cookie: Cookie) -> Option<N::Sandbox> {
        let mut pods = self.pods.values();
        let pod = pods.find(|pod| pod.armed_in() == Some(cookie))?;
        let sandbox = self.node.find(pod.entry.as_ref().ok()?).ok()??;
        (sandbox.cookie().ok()? == cookie).then_some(sandbox)
    }

    /// Adds up what was decided, and tells of what was refused.
    fn look_at_counts(&mut self) {
        let mut news = Vec::new();
        for (name, pod) in &self.pods {
            let Some(cookie) = pod.armed_in() else {
                continue;
            };
            let more = self.decisions.take(cookie, &self.dataplane.counts(cookie));
            let refused = REFUSED.iter().map(|row| (*row, more[*row as usize]));
            let refused = refused.filter(|(_, count)| *count > 0);
            news.extend(refused.map(|(row, count)| (name.clone(), row, count)));
        }
        self.decisions.begin();
        for (name, row, count) in news {
            tracing::warn!(pod = %name, row = row.name(), count, "refused what a pod's programs asked for");
            (self.tell)(&name, PodEvent::Refused { row, count });
        }
    }
}

/// Those of a namespace's connections that are none any more.
fn ended(
    cookie: Cookie,
    sandbox: &impl Sandbox,
    mut flows: HashSet<FlowKey>,
) -> Result<HashSet<FlowKey>, NetnsError> {
    // Twice: while sockets come and go the kernel may leave one out.
    for _ in 0..2 {
        let ports: HashSet<u16> = flows.iter().map(|flow| flow.server_port).collect();
        for port in ports {
            let Some(open) = sandbox.connected_to(port, MOST)? else {
                // So many that who is missing cannot be told.
                flows.retain(|flow| flow.server_port != port);
                continue;
            };
            for (own, peer) in open {
                flows.remove(&FlowKey::new(
                    cookie,
                    addr(own.ip()),
                    own.port(),
                    addr(peer.ip()),
                    peer.port(),
                ));
            }
        }
    }
    Ok(flows)
}
