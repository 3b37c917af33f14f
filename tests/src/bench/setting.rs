//! The ways to redirect that are compared.

use clap::ValueEnum;
use serde::Serialize;
use sidestep_agent::{
    netns::Namespace,
    shortcut::{Allowed, Options, Participant, Reach, Readers, Shortcut},
};
use sidestep_ebpf_common::Ids;

use crate::{
    envoy::{INBOUND_PORT, OUTBOUND_PORT},
    mesh::Mesh,
    redirect::{Node, Pod, PodState, Redirect},
};

/// The user and group of the proxy.
const PROXY: u32 = 1337;

/// A way to bring a pod's connections to its sidecar, and how far bytes go past TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// Istio's own rules
    Iptables,
    /// Sidestep without the shortcut
    Off,
    /// Between an application and its own sidecar
    Pod,
    /// Also between the sidecars of the node
    Node,
    /// Also into the application's sockets
    NodeAndApplication,
}

impl Setting {
    /// All of them; ratios are to the first.
    pub const ALL: [Self; 5] = [
        Self::Iptables,
        Self::Off,
        Self::Pod,
        Self::Node,
        Self::NodeAndApplication,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Off => "sidestep, off",
            Self::Pod => "pod",
            Self::Node => "node",
            Self::NodeAndApplication => "node, into application",
        }
    }

    /// Makes two pods on a machine of their own, redirected this way.
    pub fn prepare(self) -> Prepared {
        let agent =
            |reach| Mesh::with_pods(Node::alone_with(&["--shortcut", reach]), far, |_, _| ());
        let mut shortcut = None;
        let mesh = match self {
            Self::Iptables => Mesh::new(Node::new(Redirect::Iptables)),
            Self::Off => agent("off"),
            Self::Pod => agent("pod"),
            Self::Node => agent("node"),
            // The agent does so only where the kernel shows how applications read. These are known to read plainly.
            Self::NodeAndApplication => {
                let node = Node::alone_with(&["--shortcut", "off"]);
                let mut own = load(&node);
                let mesh = Mesh::with_pods(node, far, |client, server| {
                    for pod in [client, server] {
                        own.admit(&participant(pod)).expect("there is room");
                    }
                });
                shortcut = Some(own);
                mesh
            }
        };
        Prepared {
            setting: self,
            mesh,
            shortcut,
        }
    }
}

/// Two pods, and what redirects them.
pub struct Prepared {
    /// Which way.
    pub setting: Setting,
    /// The pods.
    pub mesh: Mesh,
    shortcut: Option<Shortcut>,
}

impl Prepared {
    /// What the shortcut's programs counted, by name.
    pub fn counts(&self) -> std::collections::BTreeMap<String, u64> {
        match (&self.shortcut, self.setting) {
            (Some(own), _) => {
                let tally = own.tally().into_iter();
                tally
                    .map(|(count, n)| (count.name().to_owned(), n))
                    .collect()
            }
            (None, Setting::Iptables) => std::collections::BTreeMap::new(),
            (None, _) => {
                let status = self.mesh.node().agent().status();
                status
                    .map(|status| status.shortcut.counts)
                    .unwrap_or_default()
            }
        }
    }

    /// Fails unless the shortcut is as it should be.
    pub fn check(&self) -> anyhow::Result<()> {
        if matches!(self.setting, Setting::Pod | Setting::Node) {
            let status = self.mesh.node().agent().status();
            let shortcut = status.map(|status| status.shortcut);
            let off = shortcut.and_then(|shortcut| shortcut.reason);
            anyhow::ensure!(off.is_none(), "the shortcut is off: {off:?}");
        }
        Ok(())
    }
}

/// A pod that allows everything, so that the agent's own setting is what counts.
fn far(node: &Node, fixture: &str, addresses: &[&str]) -> Pod {
    let pod = node.bare_pod(fixture, addresses);
    let manifest = pod.manifest();
    let annotated = manifest.replacen(
        "annotations:\n",
        "annotations:\n    sidestep.dev/shortcut: \"node\"\n",
        1,
    );
    assert_ne!(annotated, manifest, "the file has no annotations");
    node.write_pod_file(&pod, &annotated);
    node.agent().wait_for(pod.name(), PodState::is_programmed);
    pod
}

fn load(node: &Node) -> Shortcut {
    let options = Options {
        readers: Readers::Trusted,
        ..Options::default()
    };
    Shortcut::load(node.pods().path(), options).unwrap_or_else(|error| panic!("{error}"))
}

fn participant(pod: &Pod) -> Participant {
    let namespace = Namespace::open(pod.namespace().name()).expect("a namespace of ours");
    let proxy = Ids::new(&[PROXY]).expect("one id");
    Participant {
        cookie: namespace.cookie().expect("it has a cookie"),
        outbound_port: OUTBOUND_PORT,
        inbound_port: INBOUND_PORT,
        uids: proxy,
        gids: proxy,
        addresses: pod.addresses().to_vec(),
        allowed: Allowed {
            reach: Reach::Node,
            into_application: true,
        },
    }
}
