//! The facts about the cluster on which a decision depends, as values.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, Pod, Taint};
pub(crate) use sidestep_contract::node::ARCHITECTURES;
use sidestep_contract::{keys, words};

/// Labels and annotations of a pod's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The nodes by name; `None` where there is no API server, as for files: every node is then assumed to run an agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cluster {
    /// The nodes.
    pub nodes: Option<BTreeMap<String, Node>>,
    /// What volumes there are.
    pub volumes: Arc<Volumes>,
}

/// From which nodes pods reach their volumes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Volumes {
    /// By namespace and name of a PersistentVolumeClaim, the volume that it is bound to.
    pub claims: BTreeMap<(String, String), String>,
    /// By name of a PersistentVolume, the nodes from which it can be reached; all, if it is not here.
    pub reached_from: BTreeMap<String, NodeSelector>,
}

impl Volumes {
    /// The pod's claims that are bound to a volume which not every node reaches. A claim that is not bound yet binds where the
    /// pod comes to.
    pub(crate) fn of<'a>(&'a self, pod: &'a Pod) -> Vec<(&'a str, &'a NodeSelector)> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref());
        let claims = volumes.unwrap_or_default().iter().filter_map(|volume| {
            let claim = volume.persistent_volume_claim.as_ref()?;
            Some(claim.claim_name.as_str())
        });
        let bound = claims.filter_map(|claim| {
            let key = (namespace.to_owned(), claim.to_owned());
            let volume = self.claims.get(&key)?;
            Some((claim, self.reached_from.get(volume)?))
        });
        bound.collect()
    }
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// What schedulers look at.
    pub facts: Arc<Facts>,
    /// Whether somebody opens gates there.
    pub agent: Agent,
}

/// What of a node decides which pods may run on it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
}

/// The agent of a node. Of several, the last of these counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Agent {
    /// It has none.
    #[default]
    Missing,
    /// It has one that is not ready.
    NotReady,
    /// It has one that is ready, but of an earlier release, which does not read the gates that are made now.
    Older,
    /// It has one that was ready a moment ago: it may be replaced by a newer one just now.
    Lately,
    /// It has one that is ready.
    Ready,
}

words! {
    /// Why gated pods keep off a node that could run Sidestep: the value of its label [`keys::WITHOUT_AGENT`].
    WithoutAgent, "missing, not-ready, older or cannot-run" {
        /// No agent's pod is for it.
        Missing = "missing",
        /// Its agent has not been ready for long.
        NotReady = "not-ready",
        /// Its agent does not read the gates that are made now.
        Older = "older",
        /// Its agent says that it never will be.
        CannotRun = "cannot-run",
    }
}

/// How many of the nodes that should have a ready agent have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Those that have, or had a moment ago.
    pub ready: usize,
    /// All of them.
    pub of: usize,
}

/// What the nodes of an accelerated pod must be. By architecture and operating system an autoscaler can tell, before a node is
/// there, whether it will serve; by the absence of the others a new node does.
pub(crate) static CONDITIONS: LazyLock<[NodeSelectorRequirement; 4]> = LazyLock::new(|| {
    let condition = |key: &str, operator: &str, values: Option<&[&str]>| NodeSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: values.map(|values| values.iter().map(|value| (*value).to_owned()).collect()),
    };
    [
        condition(keys::UNSUPPORTED, "DoesNotExist", None),
        condition(keys::WITHOUT_AGENT, "DoesNotExist", None),
        condition(keys::OS, "In", Some(&["linux"])),
        condition(keys::ARCHITECTURE, "In", Some(&ARCHITECTURES)),
    ]
});

impl Facts {
    /// Whether its labels fulfil a requirement.
    pub(crate) fn fulfils(&self, requirement: &NodeSelectorRequirement) -> bool {
        let found = self.labels.get(&requirement.key);
        holds(requirement, found.map(String::as_str))
    }
}

/// Whether a requirement holds of what was found under its key.
pub(crate) fn holds(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |found: &str| values.iter().any(|value| value == found);
    let number = |text: &str| text.parse::<i64>().ok();
    let numbers = || Some((number(found?)?, number(values.first()?)?));
    match requirement.operator.as_str() {
        "In" => found.is_some_and(listed),
        "NotIn" => !found.is_some_and(listed),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => numbers().is_some_and(|(found, than)| found > than),
        "Lt" => numbers().is_some_and(|(found, than)| found < than),
        _ => false,
    }
}

impl Cluster {
    /// A cluster whose every node runs an agent.
    pub fn assumed() -> Self {
        Self::default()
    }

    /// Whether a gate on this node is opened now.
    pub fn opens(&self, node: &str) -> bool {
        let nodes = self.nodes.as_ref();
        nodes.is_none_or(|nodes| nodes.get(node).is_some_and(Node::opens))
    }

    /// Whether a gate on any node is.
    pub fn opens_any(&self) -> bool {
        let nodes = self.nodes.as_ref();
        nodes.is_none_or(|nodes| nodes.values().any(Node::opens))
    }

    /// The share of agents that are ready, if nodes are known.
    pub fn share(&self) -> Option<Share> {
        let nodes = self.nodes.as_ref()?.values();
        let counted: Vec<_> = nodes.filter(|node| node.should_be_ready()).collect();
        let is_ready = |node: &&&Node| matches!(node.agent, Agent::Lately | Agent::Ready);
        Some(Share {
            ready: counted.iter().filter(is_ready).count(),
            of: counted.len(),
        })
    }
}

impl Share {
    /// Whether it is at least this percentage.
    pub const fn reaches(self, percent: u8) -> bool {
        self.ready.saturating_mul(100) >= self.of.saturating_mul(percent as usize)
    }
}

impl Node {
    fn opens(&self) -> bool {
        self.agent == Agent::Ready
    }

    /// Whether it is labelled as unable to run Sidestep.
    pub fn is_unsupported(&self) -> bool {
        self.facts.labels.contains_key(keys::UNSUPPORTED)
    }

    /// Whether pods whose gates somebody opens may come to it: whether it fulfils the [`CONDITIONS`].
    pub fn is_usable(&self) -> bool {
        CONDITIONS.iter().all(|one| self.facts.fulfils(one))
    }

    /// Whether an agent should be ready on it: there is one that can be, or gated pods may come.
    fn should_be_ready(&self) -> bool {
        let without = self.facts.labels.get(keys::WITHOUT_AGENT);
        let cannot = without.is_some_and(|word| word == WithoutAgent::CannotRun.word());
        let gated_pods_come = without.is_none();
        !self.is_unsupported() && !cannot && (self.agent != Agent::Missing || gated_pods_come)
    }
}
