//! What Sidestep decides: the contract reads the policy, the rules are compiled for the pod, and the function decides that the
//! kernel's programs are built from.

use sidestep_contract::{IstioInit, Policy};
use sidestep_ebpf_common::{DNS_PROXY_PORT, Proto, Row, Verdict};
use sidestep_rules::{Facts, Outgoing, Rules, compile};
use sidestep_walker::{Arrival, Protocol, Way};

use crate::{attempts::Attempt, host::State, policy::Written};

/// A policy as Sidestep would program it.
#[derive(Debug)]
pub struct Ours {
    policy: Policy,
    rules: Rules,
}

/// Where Sidestep sends a connection, and the row that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Where it arrives; nothing where it is refused.
    pub arrival: Option<Arrival>,
    /// The row.
    pub row: Row,
}

impl Ours {
    /// Compiles a policy for a pod; else the word for why Sidestep leaves it to Istio.
    pub fn of(policy: &Written, state: &State) -> Result<Self, String> {
        let container = policy.container();
        let policy = IstioInit::read(0, &container).policy;
        let policy = policy.map_err(|leave| leave.reason().to_owned())?;
        Self::compile(policy, state)
    }

    /// Compiles a policy that was read from a pod.
    pub fn compile(policy: Policy, state: &State) -> Result<Self, String> {
        let facts = Facts {
            cookie: 1,
            addresses: state.addresses.clone(),
            source4: state.source4,
            source6: state.source6,
            name_servers: state.name_servers.clone(),
        };
        let rules = compile(&policy, &facts, 1, true).map_err(|error| error.to_string())?;
        Ok(Self { policy, rules })
    }

    /// Where a connection goes.
    pub fn decide(&self, attempt: &Attempt) -> Decision {
        let row = match attempt.packet.way {
            Way::In => self.rules.inbound(attempt.to),
            Way::Out { uid, gid, .. } => self.rules.outbound(&Outgoing {
                proto: match attempt.packet.protocol {
                    Protocol::Tcp => Proto::Tcp,
                    Protocol::Udp => Proto::Udp,
                },
                to: attempt.to,
                bound: attempt.bound,
                uid,
                gid,
            }),
        };
        let arrival = match row.verdict() {
            Verdict::Pass => Some(Arrival::Passed),
            Verdict::Inbound => Some(Arrival::Redirected(self.policy.inbound_port.get())),
            Verdict::Outbound => Some(Arrival::Redirected(self.policy.outbound_port.get())),
            Verdict::Dns => Some(Arrival::Redirected(DNS_PROXY_PORT)),
            Verdict::Refuse => None,
        };
        Decision { arrival, row }
    }
}
