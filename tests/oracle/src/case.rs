//! One policy in one pod: the rules that Istio wrote for it and the connections that are tried, as they were recorded.

use serde::{Deserialize, Serialize};

use crate::{
    attempts::{self, Attempt},
    host::{Host, Kind, State},
    istio::{self, Loaded},
    plan::{Planned, Reason},
    policy::Written,
};

/// What was recorded of one policy. Everything that follows from it needs neither root nor a namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Case {
    /// What the policy is tried for.
    pub reason: Reason,
    /// The policy.
    pub policy: Written,
    /// Which addresses the pod was given.
    pub kind: Kind,
    /// The pod's namespace, after the rules were written.
    pub state: State,
    /// The rules.
    pub loaded: Loaded,
    /// The connections.
    pub attempts: Vec<Attempt>,
}

impl Case {
    /// Has Istio's program write the rules into a namespace of this kind, asks the kernel about `count` connections, and
    /// clears the namespace.
    pub fn record(host: &Host, planned: &Planned, count: usize) -> Self {
        let Planned {
            policy,
            name_servers,
            ..
        } = planned;
        let loaded = istio::write_rules(host.namespace(), policy, name_servers);
        let state = State::read(host.namespace(), name_servers);
        let attempts = attempts::near(host.namespace(), policy, &state, planned.seed, count);
        host.clear();
        Self {
            reason: planned.reason,
            policy: policy.clone(),
            kind: planned.kind,
            state,
            loaded,
            attempts,
        }
    }
}
