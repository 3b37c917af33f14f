//! Which nodes are tested, and which pods there are: pure.

use serde::Serialize;

use crate::cluster::{AgentPod, Answer, SeenNode};

/// Who redirects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Side {
    /// Sidestep.
    Sidestep,
    /// Istio's own rules.
    Istio,
}

/// Where the server is, as its client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Path {
    /// On the client's node.
    SameNode,
    /// On another one.
    TwoNodes,
}

impl Path {
    /// For people.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::SameNode => "same node",
            Self::TwoNodes => "two nodes",
        }
    }
}

/// The client of a side.
pub(super) const fn client(side: Side) -> &'static str {
    match side {
        Side::Sidestep => "client",
        Side::Istio => "client-istio",
    }
}

/// A server of a side, and its Service.
pub(super) const fn server(side: Side, path: Path) -> &'static str {
    match (side, path) {
        (Side::Sidestep, Path::SameNode) => "near",
        (Side::Sidestep, Path::TwoNodes) => "far",
        (Side::Istio, Path::SameNode) => "near-istio",
        (Side::Istio, Path::TwoNodes) => "far-istio",
    }
}

/// The client without a sidecar.
pub(super) const OUTSIDE: &str = "outside";

/// The nodes that are tested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nodes {
    /// The clients' node.
    pub(super) near: String,
    /// The other one; or why there is none.
    pub(super) far: Result<String, String>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) name: &'static str,
    pub(super) node: String,
    /// Who redirects it; `None` for the one that is outside of the mesh.
    pub(super) side: Option<Side>,
    pub(super) is_server: bool,
}

impl Nodes {
    /// The paths that can be tested.
    pub(super) fn paths(&self) -> Vec<Path> {
        let far = self.far.as_ref().ok().map(|_| Path::TwoNodes);
        [Path::SameNode].into_iter().chain(far).collect()
    }

    /// All pods.
    pub(super) fn members(&self) -> Vec<Member> {
        let mut members = Vec::new();
        for side in [Side::Sidestep, Side::Istio] {
            let mut member = |name, node: &String, is_server| {
                members.push(Member {
                    name,
                    node: node.clone(),
                    side: Some(side),
                    is_server,
                });
            };
            member(client(side), &self.near, false);
            member(server(side, Path::SameNode), &self.near, true);
            if let Ok(far) = &self.far {
                member(server(side, Path::TwoNodes), far, true);
            }
        }
        members.push(Member {
            name: OUTSIDE,
            node: self.near.clone(),
            side: None,
            is_server: false,
        });
        members
    }
}

/// Chooses nodes: those that are asked for, otherwise the first two, by name, on which pods are accelerated and may be scheduled.
pub(super) fn chosen(
    asked: &[String],
    nodes: &[SeenNode],
    agents: &[(AgentPod, Answer)],
) -> Result<Nodes, String> {
    if let Some(name) = asked
        .iter()
        .find(|name| !nodes.iter().any(|node| node.name == **name))
    {
        return Err(format!("there is no node {name}"));
    }
    let usable = |node: &SeenNode| usable(node, agents);
    let named = |name: &String| {
        let mut all = nodes.iter();
        let node = all.find(|node| node.name == *name);
        let unusable = node.map_or(Ok(()), usable);
        unusable.map_err(|why| format!("node {name} cannot be tested: {why}"))
    };
    match asked {
        [] => {}
        [near] => {
            named(near)?;
            return Ok(Nodes {
                near: near.clone(),
                far: Err("one --node is asked for".to_owned()),
            });
        }
        [near, far] if near != far => {
            named(near)?;
            named(far)?;
            return Ok(Nodes {
                near: near.clone(),
                far: Ok(far.clone()),
            });
        }
        _ => return Err("at most two nodes can be tested, which must be different".to_owned()),
    }
    let mut fit: Vec<_> = nodes
        .iter()
        .filter(|node| !node.cordoned && usable(node).is_ok())
        .map(|node| node.name.clone())
        .collect();
    fit.sort();
    let mut fit = fit.into_iter();
    let Some(near) = fit.next() else {
        return Err("no node has an agent that is ready: `sidestep check` says why".to_owned());
    };
    let far = fit
        .next()
        .ok_or_else(|| format!("{near} is the only one with an agent that is ready"));
    Ok(Nodes { near, far })
}

/// Whether a node's pods are accelerated; or why not.
fn usable(node: &SeenNode, agents: &[(AgentPod, Answer)]) -> Result<(), String> {
    if let Some(why) = &node.unfit {
        return Err(format!("it cannot run Sidestep ({why})"));
    }
    if let Some(why) = &node.without_agent {
        return Err(format!("accelerated pods keep off it ({why})"));
    }
    let mut all = agents.iter();
    match all.find(|(pod, _)| pod.node == node.name) {
        None => Err("it has no agent".to_owned()),
        Some((_, Err(why))) => Err(format!("its agent does not answer: {why}")),
        Some((_, Ok(status))) if status.ready => Ok(()),
        Some((_, Ok(status))) => {
            let why = status.errors.join("; ");
            Err(format!("its agent is not ready: {why}"))
        }
    }
}

#[cfg(test)]
mod tests;
