//! The facts about the cluster on which a decision depends, as values.

use std::collections::{BTreeMap, BTreeSet};

/// The architectures that Sidestep's images are for, as Kubernetes names them.
pub(crate) const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// Labels and annotations of a pod's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The nodes on which gates are opened, and those on which they cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The nodes with a ready agent.
    pub agents: Agents,
    /// The nodes that cannot run Sidestep, by name.
    pub unsupported: BTreeSet<String>,
}

/// Nodes with a ready agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agents {
    /// Every node: assumed where there is no API server, as for files.
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
    /// Whether any node has a ready agent.
    pub fn any(&self) -> bool {
        match self {
            Self::Everywhere => true,
            Self::On(nodes) => !nodes.is_empty(),
        }
    }

    /// Whether this node has a ready agent.
    pub fn on(&self, node: &str) -> bool {
        match self {
            Self::Everywhere => true,
            Self::On(nodes) => nodes.contains(node),
        }
    }
}
