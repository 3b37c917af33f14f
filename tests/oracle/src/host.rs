//! A pod's network namespace without a network: the kernel answers in it where packets would leave and with which source.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::Command,
};

use serde::{Deserialize, Serialize};
use sidestep_kit::{
    net::{Namespace, run},
    process::{PATIENCE, eventually},
};

/// Which addresses a pod has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Both; the kernel always lists IPv4 first.
    Both,
    /// Both, of which the IPv4 address is link-local: Istio takes IPv6 for the first.
    V6First,
    /// Two IPv4 addresses, and IPv6.
    Several,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::V4, Self::V6, Self::Both, Self::V6First, Self::Several];

    const fn addresses(self) -> &'static [&'static str] {
        match self {
            Self::V4 => &["10.77.0.10/16"],
            Self::V6 => &["fd77::10/64"],
            Self::Both => &["10.77.0.10/16", "fd77::10/64"],
            Self::V6First => &["169.254.7.10/16", "fd77::10/64"],
            Self::Several => &["10.77.0.10/16", "10.77.0.11/16", "fd77::10/64"],
        }
    }
}

/// Lists of name servers that pods are given.
pub(crate) const NAME_SERVERS: [&[&str]; 6] = [
    &["10.77.0.53"],
    &["10.77.0.53", "fd77::53"],
    &["10.0.0.10", "10.1.2.3"],
    &["127.0.0.53"],
    &["fd77::53"],
    &[],
];

/// What is known of a namespace after rules were written in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Every address of every interface, in the kernel's order.
    pub addresses: Vec<IpAddr>,
    /// Where IPv4 connections to elsewhere come from.
    pub source4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub source6: Option<Ipv6Addr>,
    /// The pod's name servers.
    pub name_servers: Vec<IpAddr>,
}

/// The namespace.
#[derive(Debug)]
pub struct Host {
    namespace: Namespace,
}

/// Where a socket's packets go, by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The source address.
    pub source: IpAddr,
    /// The destination address, which is another one than was asked for where that was unspecified.
    pub destination: IpAddr,
    /// Whether they leave by `lo`.
    pub loopback: bool,
}

/// Destinations that no pod has.
const ELSEWHERE: [&str; 2] = ["203.0.113.9:9", "[2001:db8::9]:9"];

impl Host {
    /// Makes it. Its interface leads nowhere, and no packet is sent.
    pub fn new(kind: Kind) -> Self {
        let namespace = Namespace::new("oracle");
        namespace.ip("link add eth0 type veth peer name node");
        namespace.ip("link set node up");
        for address in kind.addresses() {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            namespace.ip(&format!("addr add {address} dev eth0 {nodad}"));
        }
        namespace.ip("link set eth0 up");
        for family in ["-4", "-6"] {
            let of_family = |it: &&&str| it.contains(':') == (family == "-6");
            if kind.addresses().iter().any(|it| of_family(&it)) {
                namespace.ip(&format!("{family} route add default dev eth0"));
            }
        }
        Self { namespace }
    }

    /// The namespace itself.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Takes away what `istio-iptables` made.
    pub fn clear(&self) {
        run(self.namespace.command("nft").args(["flush", "ruleset"]));
        // It is there where IPv6 was captured.
        let added = Command::new("ip")
            .args(["-n", self.namespace.name(), "addr", "delete", "::6/128"])
            .args(["dev", "lo"])
            .output();
        added.expect("ip can be run");
    }
}

impl State {
    /// What is known of a pod's namespace, as soon as its new addresses can be used: the kernel routes to none of them before.
    pub fn read(namespace: &Namespace, name_servers: &[&str]) -> Self {
        let tentative = || namespace.ip("-o -6 addr show tentative").stdout;
        let usable = eventually(PATIENCE, || tentative().is_empty());
        assert!(usable, "an address stays tentative: {namespace:?}");
        let [v4, v6] = ["-4", "-6"].map(|family| addresses(namespace, family));
        let source = |to: &str| {
            let to = to.parse().expect("an address and a port");
            namespace.enter(|| route(to, None))
        };
        let sources = ELSEWHERE.map(|to| source(to).map(|route| route.source));
        Self {
            addresses: [v4, v6].concat(),
            source4: sources.iter().flatten().find_map(|it| v4_of(*it)),
            source6: sources.iter().flatten().find_map(|it| v6_of(*it)),
            name_servers: name_servers
                .iter()
                .map(|it| it.parse().expect("an address"))
                .collect(),
        }
    }
}

fn addresses(namespace: &Namespace, family: &str) -> Vec<IpAddr> {
    let listed = namespace.ip(&format!("-o {family} addr show"));
    let text = String::from_utf8(listed.stdout).expect("ip prints text");
    let address = |line: &str| {
        let field = line.split_whitespace().nth(3).expect("an address");
        let address = field.split('/').next().expect("an address");
        address.parse().expect("an address")
    };
    text.lines().map(address).collect()
}

const fn v4_of(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

const fn v6_of(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

/// What the kernel says of a socket that goes there, in this thread's namespace. Nothing where it refuses: there is no such
/// connection, whoever redirects. A datagram socket is asked, which sends nothing.
pub fn route(to: SocketAddr, bound: Option<IpAddr>) -> Option<Route> {
    let unspecified = || match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let from = match (bound, to) {
        // A socket for both families names its IPv4 address so.
        (Some(IpAddr::V4(v4)), SocketAddr::V6(_)) => v4.to_ipv6_mapped().into(),
        (Some(address), _) => address,
        (None, _) => unspecified(),
    };
    let socket = UdpSocket::bind((from, 0)).ok()?;
    socket.connect(to).ok()?;
    let source = socket.local_addr().ok()?.ip().to_canonical();
    let destination = socket.peer_addr().ok()?.ip().to_canonical();
    // Only what is local can be bound to: nothing else that is tried can, like multicast.
    let loopback = UdpSocket::bind((destination, 0)).is_ok();
    Some(Route {
        source,
        destination,
        loopback,
    })
}
