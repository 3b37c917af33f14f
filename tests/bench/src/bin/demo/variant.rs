//! The ways to redirect that are compared. Another one is another value here.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;
use sidestep_kit::{
    mesh::Mesh,
    redirect::{Node, Pod, Redirect},
};

/// A way to bring a pod's connections to its sidecar, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Variant {
    /// Nothing is redirected: the sidecars run and see no request.
    Direct,
    /// Istio's own rules, as its istio-init writes them.
    Iptables,
    /// Our agent.
    Sidestep,
}

impl Variant {
    /// Makes two pods on a machine of their own, redirected this way.
    pub(crate) fn prepare(self) -> Mesh {
        match self {
            Self::Direct => Mesh::direct(Node::new(Redirect::Iptables)),
            Self::Iptables => Mesh::new(Node::new(Redirect::Iptables)),
            Self::Sidestep => Mesh::new(Node::alone()),
        }
    }

    /// Whether the sidecars must see every request.
    pub(crate) fn redirects(self) -> bool {
        self != Self::Direct
    }

    /// How long it took to program each pod, in microseconds, where it is known.
    pub(crate) fn programmed_us(self, mesh: &Mesh) -> Vec<u64> {
        if self != Self::Sidestep {
            return Vec::new();
        }
        let agent = mesh.node().agent();
        let time = |pod: &Pod| agent.pod(pod.name())?.programmed_us;
        [mesh.client(), mesh.server()]
            .into_iter()
            .filter_map(time)
            .collect()
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Direct => "direct",
            Self::Iptables => "iptables",
            Self::Sidestep => "sidestep",
        })
    }
}

/// How many rules of iptables there are in a pod, of either family and either back end.
pub(crate) fn iptables_rules(pod: &Pod) -> usize {
    let programs = [
        "iptables-nft-save",
        "ip6tables-nft-save",
        "iptables-legacy-save",
        "ip6tables-legacy-save",
    ];
    let count = |program| {
        let output = pod.namespace().command(program).output();
        // A back end that is not installed has no rules.
        output.map_or(0, |output| {
            let rules = String::from_utf8_lossy(&output.stdout);
            rules.lines().filter(|line| line.starts_with("-A")).count()
        })
    };
    programs.into_iter().map(count).sum()
}
