//! Two pods in network namespaces, with sidecars that are configured as Istio would.

use std::collections::BTreeMap;

use anyhow::ensure;
use sidestep_agent::shortcut::{Allowed, Options, Participant, Reach, Shortcut};
use sidestep_ebpf_common::Ids;
use sidestep_kernel::netns::Namespace;

use super::{Setting, Stage};
use sidestep_kit::{
    app::Seen,
    envoy::{INBOUND_PORT, OUTBOUND_PORT},
    load::Measured,
    mesh::{CpuTime, Mesh, Requests},
    redirect::{Node, Pod, Redirect},
    traffic::Load,
};

/// The user and group of the proxy.
const PROXY: u32 = 1337;

/// See [`Stage`].
pub struct Pods {
    setting: Setting,
    mesh: Mesh,
    shortcut: Option<Shortcut>,
}

impl Pods {
    /// Makes two pods on a machine of their own, redirected this way.
    pub fn new(setting: Setting) -> anyhow::Result<Self> {
        let mut shortcut = None;
        let mesh = match setting {
            Setting::Direct => Mesh::direct(Node::new(Redirect::Iptables)),
            Setting::Explicit => Mesh::explicit(Node::new(Redirect::Iptables)),
            Setting::Iptables => Mesh::new(Node::new(Redirect::Iptables)),
            Setting::Nftables => Mesh::new(Node::new(Redirect::Nftables)),
            // The pods allow everything, so that the agent's own setting is what counts.
            Setting::Off | Setting::Pod | Setting::Node => {
                let node = Node::alone_with(&["--shortcut", setting.reach()]);
                Mesh::with_pods(node, Node::far_pod, |_, _| ())
            }
            // The agent does so only where the kernel shows how applications read. These are known to read plainly.
            Setting::NodeAndApplication => {
                let (mesh, own) = of_our_own(Options::default());
                shortcut = Some(own);
                mesh
            }
            #[cfg(feature = "naive")]
            Setting::Naive => {
                let mut options = Options::default();
                options.switches.naive = true;
                let (mesh, own) = of_our_own(options);
                shortcut = Some(own);
                mesh
            }
        };
        let pods = Self {
            setting,
            mesh,
            shortcut,
        };
        if matches!(setting, Setting::Pod | Setting::Node) {
            let status = pods.mesh.node().agent().status();
            let off = status.and_then(|status| status.shortcut.reason);
            ensure!(off.is_none(), "the shortcut is off: {off:?}");
        }
        Ok(pods)
    }
}

impl Stage for Pods {
    fn setting(&self) -> Setting {
        self.setting
    }

    fn renew(&mut self) {
        self.mesh.start_sidecars();
    }

    fn answers(&self, count: usize) -> anyhow::Result<Vec<Seen>> {
        self.mesh.get(count, false)
    }

    fn load(&self, what: &Load) -> anyhow::Result<Measured> {
        self.mesh.load(what, || false)
    }

    fn cpu(&self) -> CpuTime {
        self.mesh.cpu()
    }

    fn requests(&self) -> Option<Requests> {
        Some(self.mesh.requests())
    }

    fn wait_for_requests(&self, before: Requests, count: u64) -> Requests {
        self.mesh.wait_for_requests(before, count)
    }

    fn counts(&self) -> BTreeMap<String, u64> {
        match (&self.shortcut, self.setting) {
            (Some(own), _) => {
                let tally = own.tally().into_iter();
                tally
                    .map(|(count, n)| (count.name().to_owned(), n))
                    .collect()
            }
            (None, Setting::Direct | Setting::Explicit | Setting::Iptables | Setting::Nftables) => {
                BTreeMap::new()
            }
            (None, _) => {
                let status = self.mesh.node().agent().status();
                status
                    .map(|status| status.shortcut.counts)
                    .unwrap_or_default()
            }
        }
    }
}

/// Pods whose shortcut is not the agent's, with all that can be allowed.
fn of_our_own(options: Options) -> (Mesh, Shortcut) {
    let node = Node::alone_with(&["--shortcut", "off"]);
    let mut own = load(&node, options);
    let mesh = Mesh::with_pods(node, Node::far_pod, |client, server| {
        for pod in [client, server] {
            own.admit(&participant(pod)).expect("there is room");
        }
    });
    (mesh, own)
}

fn load(node: &Node, options: Options) -> Shortcut {
    let loaded = Shortcut::load(node.pods().path(), options);
    let mut shortcut = loaded.unwrap_or_else(|error| panic!("{error}"));
    let watched = shortcut.watch_readers();
    assert!(watched, "{:?}", shortcut.cannot_watch());
    shortcut
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
            from_application: true,
            into_application: true,
        },
        namespace: String::new(),
    }
}
