//! The cluster as `sidestep status` sees it: what the API server has, joined with what the agents tell. The joining is pure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use kube::Client;
use serde::Serialize;
use sidestep_agent_api::{PodStatus, Status};

mod join;

pub(super) use self::join::BEGINS;
use self::join::{errors, joined};
use super::Scope;
use crate::cluster::{self, AgentPod, Answer, Seen, SeenNode, SeenPod};

/// What was read.
#[derive(Default)]
pub(super) struct View {
    pub(super) nodes: Vec<SeenNode>,
    /// By node.
    pub(super) agents: BTreeMap<String, (AgentPod, Answer)>,
    pub(super) pods: Vec<SeenPod>,
}

/// How far a node's agent is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum AgentState {
    Ready,
    NotReady,
    /// There is one, and it does not answer.
    Unreachable,
    /// There should be one.
    Missing,
    /// The node cannot run Sidestep.
    Unsupported,
}

/// A line of the nodes' table.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct NodeRow {
    pub(super) node: String,
    pub(super) agent: AgentState,
    /// Why it is not ready.
    pub(super) cause: Option<String>,
    pub(super) kernel: String,
    pub(super) version: Option<String>,
    pub(super) accelerated: usize,
    pub(super) waiting: usize,
    pub(super) left: usize,
    /// Absent where no agent tells.
    pub(super) shortcut: Option<bool>,
    /// Why it is off.
    pub(super) shortcut_off: Option<String>,
}

/// What became of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    Accelerated,
    /// It is to be accelerated and is not yet.
    Waiting,
    /// Left to Istio.
    Left,
}

/// A line of the pods' table.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct PodRow {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) node: Option<String>,
    pub(super) state: State,
    /// Why it waits or is left, in a word.
    pub(super) reason: Option<String>,
    /// The same in a sentence; also what is remarkable of an accelerated pod.
    pub(super) message: Option<String>,
    /// The reach in effect; absent where the pod is not accelerated.
    pub(super) shortcut: Option<String>,
}

impl View {
    /// Reads what is to be shown. Only the agents are asked that this takes.
    pub(super) async fn of(client: &Client, sidestep: &str, scope: &Scope) -> anyhow::Result<Self> {
        let namespace = match scope {
            Scope::Pods(namespace) => namespace.as_deref(),
            Scope::Pod { namespace, .. } => Some(namespace.as_str()),
            _ => None,
        };
        let (nodes, agents, pods) = tokio::join!(
            cluster::nodes(client),
            cluster::agent_pods(client, sidestep),
            cluster::seen(client, namespace)
        );
        let mut nodes = nodes.context("listing nodes")?;
        let mut agents =
            agents.with_context(|| format!("listing the agents' pods in namespace {sidestep}"))?;
        let mut pods = pods.context("listing pods")?;
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        pods.sort_by(|one, other| {
            (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name))
        });
        if let Some(concerned) = concerned(scope, &pods) {
            agents.retain(|agent| concerned.contains(agent.node.as_str()));
        }
        let agents = cluster::answers(client, sidestep, agents).await;
        let agents = agents.into_iter();
        Ok(Self {
            nodes,
            agents: agents.map(|one| (one.0.node.clone(), one)).collect(),
            pods,
        })
    }

    /// The nodes. One that has an agent and is not in the list, which may be newer, is there, too.
    pub(super) fn node_rows(&self) -> Vec<NodeRow> {
        let pods = self.pod_rows();
        let known: BTreeSet<_> = self.nodes.iter().map(|node| &node.name).collect();
        let newer = self.agents.keys().filter(|node| !known.contains(node));
        let newer: Vec<_> = newer.map(|name| SeenNode::named(name)).collect();
        let all = self.nodes.iter().chain(&newer);
        all.map(|node| self.node_row(node, &pods)).collect()
    }

    fn node_row(&self, node: &SeenNode, pods: &[PodRow]) -> NodeRow {
        let answer = self.agents.get(&node.name).map(|(_, answer)| answer);
        let status = answer.and_then(|answer| answer.as_ref().ok());
        let (agent, cause) = match answer {
            None => match &node.unfit {
                Some(why) => (AgentState::Unsupported, Some(why.clone())),
                None => (
                    AgentState::Missing,
                    Some("no agent's pod is there".to_owned()),
                ),
            },
            Some(Err(why)) => (AgentState::Unreachable, Some(why.clone())),
            Some(Ok(status)) if status.ready => (AgentState::Ready, errors(status)),
            Some(Ok(status)) => (AgentState::NotReady, errors(status)),
        };
        let here = pods
            .iter()
            .filter(|pod| pod.node.as_ref() == Some(&node.name));
        let count = |state| here.clone().filter(|pod| pod.state == state).count();
        NodeRow {
            node: node.name.clone(),
            agent,
            cause,
            kernel: node.kernel.clone(),
            version: status.map(|status| status.version.clone()),
            accelerated: count(State::Accelerated),
            waiting: count(State::Waiting),
            left: count(State::Left),
            shortcut: status.map(|status| status.shortcut.on),
            shortcut_off: status.and_then(shortcut_off),
        }
    }

    /// The pods.
    pub(super) fn pod_rows(&self) -> Vec<PodRow> {
        self.pods.iter().map(|pod| self.pod_row(pod)).collect()
    }

    fn pod_row(&self, pod: &SeenPod) -> PodRow {
        let node = pod.node.as_ref();
        let answer = node.and_then(|node| self.agents.get(node));
        let answer = answer.map(|(_, answer)| answer);
        let (state, reason, message) = joined(pod, answer);
        let off = answer.and_then(|answer| shortcut_off(answer.as_ref().ok()?));
        let reach = pod.reach.clone().filter(|_| state == State::Accelerated);
        PodRow {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            node: pod.node.clone(),
            state,
            reason: reason.map(ToOwned::to_owned).or_else(|| pod.left_word()),
            message,
            shortcut: reach.map(|reach| off.map_or(reach, |_| "off".to_owned())),
        }
    }

    /// What a pod's agent tells of it.
    pub(super) fn told(&self, pod: &SeenPod) -> Option<&PodStatus> {
        let (_, answer) = self.agents.get(pod.node.as_ref()?)?;
        told(answer.as_ref().ok()?, pod)
    }
}

/// The nodes whose agents have something to tell of what is shown; `None` for all.
fn concerned<'a>(scope: &'a Scope, pods: &'a [SeenPod]) -> Option<BTreeSet<&'a str>> {
    let of_pods = |name: Option<&str>| {
        let pods = pods
            .iter()
            .filter(|pod| name.is_none_or(|name| pod.name == name));
        pods.filter_map(|pod| pod.node.as_deref()).collect()
    };
    match scope {
        Scope::Agent(_) | Scope::Nodes => None,
        Scope::Node(name) => Some(BTreeSet::from([name.as_str()])),
        Scope::Pods(_) => Some(of_pods(None)),
        Scope::Pod { name, .. } => Some(of_pods(Some(name))),
    }
}

fn told<'a>(status: &'a Status, pod: &SeenPod) -> Option<&'a PodStatus> {
    let mut pods = status.pods.iter();
    pods.find(|one| one.namespace == pod.namespace && one.name == pod.name)
}

fn shortcut_off(status: &Status) -> Option<String> {
    let why = status.shortcut.reason.clone();
    (!status.shortcut.on).then(|| why.unwrap_or_else(|| "not proven yet".to_owned()))
}

impl SeenPod {
    fn left_word(&self) -> Option<String> {
        match &self.seen {
            Seen::Left { word, .. } => Some(word.clone()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
