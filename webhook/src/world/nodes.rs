//! The nodes, put together from two watches: of the nodes themselves, and of agents' pods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node as KubeNode, Pod};
use kube::ResourceExt as _;
use tokio::time::Instant;

use crate::cluster::{Agent, Cluster, Facts, Node};
use crate::decide::node::bound;

/// How long an agent that is no longer ready counts as one that is about to be: as long as it takes to replace one by a newer.
const LATELY: Duration = Duration::from_mins(2);

/// An agent's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AgentPod {
    /// The node that it is on, or will be.
    pub(super) node: String,
    /// Whether it is ready.
    pub(super) is_ready: bool,
}

/// What the watches last said.
#[derive(Debug, Default)]
pub(super) struct Known {
    facts: BTreeMap<String, Arc<Facts>>,
    /// By node, whether an agent is ready on it.
    agents: BTreeMap<String, bool>,
    /// When an agent was last lost.
    lost: BTreeMap<String, Instant>,
}

impl AgentPod {
    /// The agent's pod, if it is known for which node it is. One that is being deleted is not ready.
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        let conditions = pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        let stays = pod.metadata.deletion_timestamp.is_none();
        Some(Self {
            // The DaemonSet controller writes the node's name before the scheduler does.
            node: bound(pod)?.to_owned(),
            is_ready: stays && conditions.any(|one| one.type_ == "Ready" && one.status == "True"),
        })
    }
}

/// What schedulers look at.
pub(super) fn facts(node: &KubeNode) -> Arc<Facts> {
    let spec = node.spec.as_ref();
    Arc::new(Facts {
        name: node.name_any(),
        labels: node.labels().clone(),
        taints: spec
            .and_then(|spec| spec.taints.clone())
            .unwrap_or_default(),
    })
}

impl Known {
    /// Takes in all nodes.
    pub(super) fn nodes(&mut self, all: impl Iterator<Item = Arc<Facts>>) {
        self.facts = all.map(|facts| (facts.name.clone(), facts)).collect();
    }

    /// Takes in all agents' pods.
    pub(super) fn agents<'a>(&mut self, all: impl Iterator<Item = &'a AgentPod>, now: Instant) {
        let before = std::mem::take(&mut self.agents);
        for pod in all {
            *self.agents.entry(pod.node.clone()).or_default() |= pod.is_ready;
        }
        let is_ready = |node: &String| self.agents.get(node) == Some(&true);
        let lost = before
            .into_iter()
            .filter(|(node, was)| *was && !is_ready(node));
        self.lost.extend(lost.map(|(node, _)| (node, now)));
    }

    /// Drops agents that have been away for too long to count; whether there were any.
    pub(super) fn forget(&mut self, now: Instant) -> bool {
        let before = self.lost.len();
        self.lost.retain(|_, at| now - *at < LATELY);
        self.lost.len() < before
    }

    /// The cluster, as it was when the last was forgotten.
    pub(super) fn cluster(&self) -> Cluster {
        let agent = |name: &String| match self.agents.get(name) {
            Some(true) => Agent::Ready,
            _ if self.lost.contains_key(name) => Agent::Lately,
            Some(false) => Agent::NotReady,
            None => Agent::Missing,
        };
        let nodes = self.facts.iter().map(|(name, facts)| {
            let node = Node {
                facts: Arc::clone(facts),
                agent: agent(name),
            };
            (name.clone(), node)
        });
        Cluster {
            nodes: Some(nodes.collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_is_lost_counts_for_a_while_and_one_that_was_never_ready_does_not() {
        let facts = |name: &str| {
            Arc::new(Facts {
                name: name.to_owned(),
                ..Facts::default()
            })
        };
        let agent = |node: &str, is_ready| AgentPod {
            node: node.to_owned(),
            is_ready,
        };
        let mut known = Known::default();
        let now = Instant::now();
        known.nodes(["lost", "never"].map(facts).into_iter());
        let is = |known: &Known| {
            let nodes = known.cluster().nodes.expect("they are known");
            ["lost", "never"].map(|name| nodes[name].agent)
        };
        known.agents([agent("lost", true), agent("never", false)].iter(), now);
        assert_eq!(is(&known), [Agent::Ready, Agent::NotReady]);
        let later = now + LATELY;
        known.agents([agent("never", false)].iter(), later);
        assert_eq!(is(&known), [Agent::Lately, Agent::NotReady]);
        assert!(!known.forget(later + LATELY / 2));
        assert!(known.forget(later + LATELY));
        assert_eq!(is(&known), [Agent::Missing, Agent::NotReady]);
        assert!(!known.forget(later + LATELY), "once is enough");
    }
}
