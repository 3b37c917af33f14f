//! A pod in which everything listens, a neighbour and an outside host that do too.

use k8s_openapi::api::core::v1::Pod as Manifest;
use serde::de::DeserializeOwned;
use sidestep_contract::{Policy, istio_init};
use sidestep_kit::{
    actor::{Actor, Identity, Kind, Socket},
    net::Namespace,
    redirect::{Node, Pod},
};

use crate::{calls::Callers, four::DNS};

/// A neighbour's addresses; at each it answers DNS.
pub(crate) const NEIGHBOUR: [&str; 5] = [
    "10.77.9.1",
    "10.77.8.77",
    "10.77.0.53",
    "10.77.0.54",
    "fd77::53",
];
/// Ports that some fixture treats in its own way, and some that none does.
pub(crate) const PORTS: [u16; 8] = [53, 80, 5432, 9443, 15001, 15006, 15008, 15020];
pub(crate) const INBOUND: [u16; 10] = [
    53, 4444, 8080, 8081, 9000, 15001, 15006, 15008, 15020, 15090,
];

pub(crate) struct World {
    _sockets: Vec<Socket>,
    _neighbour: Namespace,
    outside: Actor,
    pod: Pod,
    // Last: it takes the pod's file away.
    _node: Node,
}

impl World {
    /// Around a pod that is redirected by now, whose proxy has these ids and listens on these ports.
    pub(crate) fn new(node: Node, pod: Pod, proxy: &Identity, outbound: u16, inbound: u16) -> Self {
        let neighbour = node.network().host("neighbour", &NEIGHBOUR);
        let (beside, outside) = (node.actor_in(&neighbour), node.outside());
        // Fast Open without a cookie, for which each server would have to be called twice.
        pod.namespace().sysctl("net/ipv4/tcp_fastopen", "5");
        let mut sockets = listen_as_proxy(&pod, proxy, outbound, inbound);
        node.wait_active(&pod);
        let app = pod.app();
        for port in INBOUND
            .into_iter()
            .filter(|it| ![outbound, inbound].contains(it))
        {
            sockets.push(app.serve("app", Kind::Tcp, &format!("[::]:{port}")));
        }
        for port in PORTS {
            sockets.push(beside.serve("neighbour", Kind::Tcp, &format!("[::]:{port}")));
            sockets.push(outside.serve("outside", Kind::Tcp, &format!("[::]:{port}")));
        }
        let own = pod.addresses().iter().map(ToString::to_string);
        let loopback = LOOPBACK.iter().map(ToString::to_string);
        for address in own.chain(loopback) {
            sockets.push(app.serve("app", Kind::Udp, &with_port(&address, 53)));
        }
        for address in NEIGHBOUR {
            sockets.push(beside.serve("neighbour", Kind::Udp, &with_port(address, 53)));
        }
        Self {
            _sockets: sockets,
            _neighbour: neighbour,
            outside,
            pod,
            _node: node,
        }
    }

    pub(crate) fn pod(&self) -> &Pod {
        &self.pod
    }

    pub(crate) fn callers(&self) -> Callers<'_> {
        Callers::new(&self.pod, &self.outside)
    }
}

/// Of both families whatever the pod has: native nftables rules redirect IPv6 within pods that have none.
fn listen_as_proxy(pod: &Pod, identity: &Identity, outbound: u16, inbound: u16) -> Vec<Socket> {
    let proxy = pod.actor(identity);
    let mut sockets = vec![
        proxy.serve("outbound", Kind::Tcp, &format!("[::]:{outbound}")),
        proxy.serve("inbound", Kind::Tcp, &format!("[::]:{inbound}")),
    ];
    for address in LOOPBACK {
        for kind in [Kind::Udp, Kind::Tcp] {
            sockets.push(proxy.serve("dns", kind, &with_port(address, DNS)));
        }
    }
    sockets
}

const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];

pub(crate) fn with_port(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

/// A pod's file, whose first document is the Pod.
pub(crate) fn file_of<T: DeserializeOwned>(pod: &Pod) -> T {
    let text = pod.manifest();
    let document = yaml_serde::Deserializer::from_str(&text).next();
    T::deserialize(document.expect("a document")).expect("a pod's file")
}

/// The policy of a pod's file.
pub(crate) fn policy_of(pod: &Pod) -> Policy {
    let manifest: Manifest = file_of(pod);
    let init = istio_init(&manifest).expect("an istio-init");
    init.policy.expect("a policy that Sidestep takes")
}
