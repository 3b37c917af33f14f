//! The ways to redirect that are compared. Another one is another value here.

use std::{fmt, io::ErrorKind};

use clap::ValueEnum;
use serde::Serialize;
use sidestep_kit::{
    mesh::Mesh,
    redirect::{Node, Pod, Redirect, ShortcutStatus},
};

/// A way to bring a pod's connections to its sidecar, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Variant {
    /// Nothing is redirected: the sidecars run and see no request.
    Direct,
    /// Istio's own rules, as its istio-init writes them.
    Iptables,
    /// Our agent, all bytes by TCP.
    Sidestep,
    /// Our agent, which lets bytes between the two sidecars skip TCP, too.
    Shortcut,
}

impl Variant {
    /// Makes two pods on a machine of their own, redirected this way; or says why this kernel cannot.
    pub(crate) fn prepare(self) -> Result<Mesh, String> {
        Ok(match self {
            Self::Direct => Mesh::direct(Node::new(Redirect::Iptables)),
            Self::Iptables => Mesh::new(Node::new(Redirect::Iptables)),
            Self::Sidestep => Mesh::new(Node::alone_with(&["--shortcut", "off"])),
            Self::Shortcut => {
                let node = Node::alone_with(&["--shortcut", "node"]);
                let shortcut = shortcut(&node);
                if !shortcut.on {
                    let reason = shortcut.reason.as_deref().unwrap_or("no reason given");
                    return Err(format!("the shortcut is off on this kernel: {reason}"));
                }
                Mesh::with_pods(node, Node::far_pod, |_, _| ())
            }
        })
    }

    /// Whether the sidecars must see every request.
    pub(crate) fn redirects(self) -> bool {
        self != Self::Direct
    }

    /// Whether it is Sidestep.
    pub(crate) fn has_agent(self) -> bool {
        matches!(self, Self::Sidestep | Self::Shortcut)
    }

    /// How many messages went past TCP so far.
    pub(crate) fn past_tcp(self, mesh: &Mesh) -> u64 {
        if self != Self::Shortcut {
            return 0;
        }
        let counts = shortcut(mesh.node()).counts;
        counts.get("redirected").copied().unwrap_or_default()
    }

    /// How long it took to program each pod, in microseconds, where it is known.
    pub(crate) fn programmed_us(self, mesh: &Mesh) -> Vec<u64> {
        if !self.has_agent() {
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
            Self::Shortcut => "sidestep, shortcut",
        })
    }
}

/// An agent that is ready has decided about it.
fn shortcut(node: &Node) -> ShortcutStatus {
    let status = node.agent().status().expect("the agent answers");
    status.shortcut
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

/// How many connections the kernel tracks in a pod now. It does so only where rules ask for it.
pub(crate) fn tracked(pod: &Pod) -> u64 {
    let path = "/proc/sys/net/netfilter/nf_conntrack_count";
    match pod.namespace().enter(|| std::fs::read_to_string(path)) {
        Ok(count) => count.trim().parse().expect("a number"),
        // The kernel has no connection tracking, or nobody has asked for it yet.
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => panic!("{path}: {error}"),
    }
}
