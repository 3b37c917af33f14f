//! What a decision needs to know of the cluster, as values.

use std::collections::{BTreeMap, BTreeSet};

/// Labels and annotations of a pod's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Where pods would be taken over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Where node agents are ready.
    pub agents: Agents,
    /// The nodes that cannot run Sidestep, by name.
    pub unsupported: BTreeSet<String>,
}

/// Nodes with a ready agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agents {
    /// Every node: nobody was asked, as for files.
    Everywhere,
    /// These nodes.
    On(BTreeSet<String>),
}

impl Cluster {
    /// A cluster whose every node runs an agent.
    pub const fn assumed() -> Self {
        Self {
            agents: Agents::Everywhere,
            unsupported: BTreeSet::new(),
        }
    }
}

impl Agents {
    /// Whether there is any.
    pub fn any(&self) -> bool {
        match self {
            Self::Everywhere => true,
            Self::On(nodes) => !nodes.is_empty(),
        }
    }

    /// Whether there is one on this node.
    pub fn on(&self, node: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::On(nodes) => nodes.contains(node),
        }
    }
}
