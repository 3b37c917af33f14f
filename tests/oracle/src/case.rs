//! One policy in one pod: the rules that Istio wrote for it and the connections that are tried, as they were recorded.

use std::collections::HashSet;

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use crate::{
    attempts::{Attempt, Choice},
    host::{Host, State},
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
        let state = host.state(name_servers);
        let choice = Choice::of(policy, &state);
        let attempts = host
            .namespace()
            .enter(|| choose(&choice, planned.seed, count));
        host.clear();
        Self {
            reason: planned.reason,
            policy: policy.clone(),
            state,
            loaded,
            attempts,
        }
    }
}

/// Different connections, by chance: of what is chosen now and then the kernel has no such connection.
fn choose(choice: &Choice, seed: u64, count: usize) -> Vec<Attempt> {
    let mut rng = Rng::with_seed(seed);
    let mut known = HashSet::new();
    let tries = (0..count * 8).filter_map(|_| choice.attempt(&mut rng));
    let fresh = tries.filter(|it| known.insert((it.to, it.bound, it.packet)));
    fresh.take(count).collect()
}
