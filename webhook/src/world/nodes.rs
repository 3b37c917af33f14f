//! The nodes, put together from two watches: of the nodes themselves, and of agents' pods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Node as KubeNode, NodeSelector, PersistentVolume, PersistentVolumeClaim, Pod,
};
use kube::ResourceExt as _;
use sidestep_contract::gate::LANGUAGE;
use sidestep_contract::keys;
use tokio::time::Instant;

use crate::cluster::{Agent, Cluster, Facts, Node, Volumes};
use crate::decide::node::bound;

/// How long an agent that is no longer ready counts as one that is about to be: as long as it takes to replace one by a newer.
const LATELY: Duration = Duration::from_mins(2);

/// An agent's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AgentPod {
    /// The node that it is on, or will be.
    pub(super) node: String,
    /// What it makes of the node's agent.
    pub(super) agent: Agent,
}

/// What the watches last said.
#[derive(Debug, Default)]
pub(super) struct Known {
    facts: BTreeMap<String, Arc<Facts>>,
    /// By node, those that have one.
    agents: BTreeMap<String, Agent>,
    /// When an agent was last lost.
    lost: BTreeMap<String, Instant>,
    volumes: Arc<Volumes>,
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
        let is_ready = stays && conditions.any(|one| one.type_ == "Ready" && one.status == "True");
        let reads = pod.labels().get(keys::READS);
        let reads = reads.map_or(Some(1), |number| number.parse().ok());
        let agent = match reads {
            _ if !is_ready => Agent::NotReady,
            Some(LANGUAGE..) => Agent::Ready,
            _ => Agent::Older,
        };
        Some(Self {
            // The DaemonSet controller writes the node's name before the scheduler does.
            node: bound(pod)?.to_owned(),
            agent,
        })
    }
}

/// Namespace and name of a claim, and the volume that it is bound to.
pub(super) type Claim = ((String, String), String);

/// A claim, if it is bound.
pub(super) fn claim(claim: &PersistentVolumeClaim) -> Option<Claim> {
    let volume = claim.spec.as_ref()?.volume_name.clone();
    let volume = volume.filter(|name| !name.is_empty())?;
    Some(((claim.namespace()?, claim.name_any()), volume))
}

/// The nodes from which a volume is reached, if not from all.
pub(super) fn reached_from(volume: &PersistentVolume) -> Option<NodeSelector> {
    let affinity = volume.spec.as_ref()?.node_affinity.as_ref()?;
    affinity.required.clone()
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

    /// Takes in all claims of volumes.
    pub(super) fn claims<'a>(&mut self, all: impl Iterator<Item = &'a Claim>) {
        // Not by make_mut: it would copy the claims of before.
        self.volumes = Arc::new(Volumes {
            claims: all.cloned().collect(),
            reached_from: self.volumes.reached_from.clone(),
        });
    }

    /// Takes in the nodes from which volumes are reached.
    pub(super) fn volumes(&mut self, all: BTreeMap<String, NodeSelector>) {
        Arc::make_mut(&mut self.volumes).reached_from = all;
    }

    /// Takes in all agents' pods.
    pub(super) fn agents<'a>(&mut self, all: impl Iterator<Item = &'a AgentPod>, now: Instant) {
        let before = std::mem::take(&mut self.agents);
        for pod in all {
            let agent = self.agents.entry(pod.node.clone()).or_default();
            *agent = pod.agent.max(*agent);
        }
        let is_ready = |node: &String| self.agents.get(node) == Some(&Agent::Ready);
        let lost = before
            .into_iter()
            .filter(|(node, was)| *was == Agent::Ready && !is_ready(node));
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
            Some(Agent::Ready) => Agent::Ready,
            _ if self.lost.contains_key(name) => Agent::Lately,
            Some(other) => *other,
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
            volumes: Arc::clone(&self.volumes),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_agent_that_reads_no_gates_of_now_is_older_if_it_is_ready() {
        let agent = |reads: Option<&str>, ready: &str| {
            let labels = reads.map(|reads| json!({(keys::READS): reads}));
            let pod = json!({
                "metadata": {"labels": labels},
                "spec": {"nodeName": "n", "containers": []},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            });
            let pod = serde_json::from_value(pod).expect("a pod");
            AgentPod::of(&pod).expect("it is on a node").agent
        };
        let now = LANGUAGE.to_string();
        let later = (LANGUAGE + 1).to_string();
        for reads in [now.as_str(), &later] {
            assert_eq!(agent(Some(reads), "True"), Agent::Ready);
            assert_eq!(agent(Some(reads), "False"), Agent::NotReady);
        }
        for reads in ["0", "", "x", "-1"] {
            assert_eq!(agent(Some(reads), "True"), Agent::Older, "{reads}");
            assert_eq!(agent(Some(reads), "False"), Agent::NotReady, "{reads}");
        }
        // Of the first releases, whose gates were the first.
        let first = if LANGUAGE == 1 {
            Agent::Ready
        } else {
            Agent::Older
        };
        assert_eq!(agent(None, "True"), first);
    }

    #[test]
    fn an_agent_that_is_lost_counts_for_a_while_and_one_that_was_never_ready_does_not() {
        let facts = |name: &str| {
            Arc::new(Facts {
                name: name.to_owned(),
                ..Facts::default()
            })
        };
        let agent = |node: &str, agent| AgentPod {
            node: node.to_owned(),
            agent,
        };
        let mut known = Known::default();
        let now = Instant::now();
        known.nodes(["lost", "never"].map(facts).into_iter());
        let is = |known: &Known| {
            let nodes = known.cluster().nodes.expect("they are known");
            ["lost", "never"].map(|name| nodes[name].agent)
        };
        known.agents(
            [agent("lost", Agent::Ready), agent("never", Agent::NotReady)].iter(),
            now,
        );
        assert_eq!(is(&known), [Agent::Ready, Agent::NotReady]);
        let later = now + LATELY;
        known.agents([agent("never", Agent::NotReady)].iter(), later);
        assert_eq!(is(&known), [Agent::Lately, Agent::NotReady]);
        assert!(!known.forget(later + LATELY / 2));
        assert!(known.forget(later + LATELY));
        assert_eq!(is(&known), [Agent::Missing, Agent::NotReady]);
        assert!(!known.forget(later + LATELY), "once is enough");
    }
}
