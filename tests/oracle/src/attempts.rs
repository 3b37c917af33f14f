//! The connections that are tried with a policy: chosen near the policy's own values, where a mistake would show.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use fastrand::Rng;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sidestep_kit::net::{Namespace, OUTSIDE_V4, OUTSIDE_V6};
use sidestep_walker::{Packet, Protocol, Way};

use crate::{host, host::State, lists, policy::Written};

/// A connection, and its first packet as the rules see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// What the program asks for, or the address that somebody outside calls.
    pub to: SocketAddr,
    /// The address that the program bound its socket to.
    pub bound: Option<IpAddr>,
    /// What the rules see of it.
    pub packet: Packet,
}

impl Attempt {
    /// A connection of the pod, by this uid and gid, if the kernel has such. To be asked in the pod's namespace.
    pub fn out(
        protocol: Protocol,
        to: SocketAddr,
        bound: Option<IpAddr>,
        (uid, gid): (u32, u32),
    ) -> Option<Self> {
        let route = host::route(to, bound)?;
        let packet = Packet {
            way: Way::Out {
                uid,
                gid,
                loopback: route.loopback,
            },
            protocol,
            source: route.source,
            destination: SocketAddr::new(route.destination, to.port()),
        };
        Some(Self { to, bound, packet })
    }

    /// The same as the kernel routes it now, after addresses have changed. To be asked in the pod's namespace.
    pub(crate) fn again(&self) -> Option<Self> {
        match self.packet.way {
            Way::In => Some(self.clone()),
            Way::Out { uid, gid, .. } => {
                Self::out(self.packet.protocol, self.to, self.bound, (uid, gid))
            }
        }
    }

    /// A connection from outside.
    pub fn into(source: IpAddr, to: SocketAddr) -> Self {
        let packet = Packet {
            way: Way::In,
            protocol: Protocol::Tcp,
            source,
            destination: to,
        };
        Self {
            to,
            bound: None,
            packet,
        }
    }
}

/// Chooses `count` different connections of a pod by chance, if there are so many.
pub fn near(
    namespace: &Namespace,
    policy: &Written,
    state: &State,
    seed: u64,
    count: usize,
) -> Vec<Attempt> {
    let choice = Choice::of(policy, state);
    let mut rng = Rng::with_seed(seed);
    let mut known = HashSet::new();
    namespace.enter(|| {
        // Of what is chosen the kernel now and then has no such connection.
        let tries = (0..count * 8).filter_map(|_| choice.attempt(&mut rng));
        let fresh = tries.filter(|it| known.insert((it.to, it.bound, it.packet)));
        fresh.take(count).collect()
    })
}

/// Values that rules of a policy speak of, and their neighbours.
struct Choice {
    addresses: Vec<IpAddr>,
    local: Vec<IpAddr>,
    name_servers: Vec<IpAddr>,
    ports: Vec<u16>,
    uids: Vec<u32>,
    gids: Vec<u32>,
}

const NETWORKS: [&str; 3] = ["-i", "-x", "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR"];
const PORTS: [&str; 8] = [
    "-p",
    "-z",
    "-e",
    "-b",
    "-d",
    "-o",
    "-q",
    "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",
];
const GROUPS: [&str; 4] = [
    "-u",
    "-g",
    "ISTIO_OUTBOUND_OWNER_GROUPS",
    "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
];
/// What Istio's rules speak of in every policy.
const ALWAYS: [&str; 10] = [
    "127.0.0.1",
    "127.0.0.2",
    "127.0.0.6",
    "127.9.9.9",
    "0.0.0.0",
    "::1",
    "::6",
    "::",
    "10.1.2.3",
    "fd00::5",
];
/// Who calls from outside.
const OUTSIDE: [&str; 2] = [OUTSIDE_V4, OUTSIDE_V6];
const APPLICATION: u32 = 1000;
const PASSTHROUGH: [&str; 2] = ["127.0.0.6", "::6"];

impl Choice {
    fn of(policy: &Written, state: &State) -> Self {
        let address = |text: &&str| text.parse::<IpAddr>().expect("an address");
        let mut choice = Self {
            addresses: ALWAYS.iter().map(address).collect(),
            local: state.addresses.clone(),
            name_servers: state.name_servers.clone(),
            ports: vec![53, 80, 8080, 15001, 15006, 15008, 15053],
            uids: vec![0, 1000, 1337],
            gids: vec![0, 1000, 1337],
        };
        choice.addresses.extend(&state.name_servers);
        choice.addresses.extend(
            state
                .addresses
                .iter()
                .flat_map(|it| around(IpNet::from(*it))),
        );
        for list in NETWORKS {
            let networks = items(policy.of(list)).filter_map(|it| it.parse::<IpNet>().ok());
            choice.addresses.extend(networks.flat_map(around));
        }
        for list in PORTS {
            let ends = items(policy.of(list)).flat_map(|it| it.split(':'));
            let ports = ends.filter_map(|it| it.trim().parse::<u16>().ok());
            choice.ports.extend(
                ports.flat_map(|it| [it, it.saturating_sub(1).max(1), it.saturating_add(1)]),
            );
        }
        for list in GROUPS {
            let ids = items(policy.of(list)).filter_map(|it| it.parse::<u32>().ok());
            let near = ids.flat_map(|it| [it, it.saturating_add(1).min(u32::MAX - 1)]);
            let near: Vec<_> = near.collect();
            choice.gids.extend(&near);
            choice.uids.extend(near);
        }
        // Nobody connects there, and link-local addresses need an interface.
        choice.addresses.retain(is_ordinary);
        choice.local.retain(is_ordinary);
        choice
    }

    /// A connection, if the kernel has such. To be asked in the pod's namespace.
    fn attempt(&self, rng: &mut Rng) -> Option<Attempt> {
        if rng.u8(..5) == 0 {
            return self.inbound(rng);
        }
        let (address, port) = self.destination(rng);
        let to = match address {
            // As every program does that uses one socket for both families.
            IpAddr::V4(v4) if rng.u8(..6) == 0 => SocketAddr::new(v4.to_ipv6_mapped().into(), port),
            address => SocketAddr::new(address, port),
        };
        let bound = match rng.u8(..8) {
            0 => Some(PASSTHROUGH[rng.usize(..2)].parse().expect("an address")),
            1 => Some(pick(&self.local, rng)),
            _ => None,
        };
        let bound = bound.filter(|it: &IpAddr| it.is_ipv4() == address.is_ipv4());
        let protocol = match rng.u8(..4) {
            0 => Protocol::Udp,
            _ => Protocol::Tcp,
        };
        Attempt::out(protocol, to, bound, self.user(rng))
    }

    fn destination(&self, rng: &mut Rng) -> (IpAddr, u16) {
        let port = if rng.u8(..8) == 0 {
            lists::port(rng)
        } else {
            pick(&self.ports, rng)
        };
        match rng.u8(..8) {
            0 if !self.name_servers.is_empty() => (pick(&self.name_servers, rng), 53),
            1 | 2 => (pick(&self.local, rng), port),
            3 => (lists::address(rng), port),
            _ => (pick(&self.addresses, rng), port),
        }
    }

    /// An application in its own group, the proxy in its own, or any of the ids that the policy speaks of.
    fn user(&self, rng: &mut Rng) -> (u32, u32) {
        let uid = pick(&self.uids, rng);
        match rng.u8(..4) {
            0 => (APPLICATION, APPLICATION),
            1 => (APPLICATION, pick(&self.gids, rng)),
            2 => (uid, uid),
            _ => (uid, pick(&self.gids, rng)),
        }
    }

    fn inbound(&self, rng: &mut Rng) -> Option<Attempt> {
        let ours = self
            .local
            .iter()
            .filter(|it| !it.is_loopback() && **it != PASSTHROUGH6);
        let ours: Vec<IpAddr> = ours.copied().collect();
        let address = ours.get(rng.usize(..ours.len().max(1)))?;
        let source = OUTSIDE.map(|it| it.parse().expect("an address"));
        let of_family = |it: &IpAddr| it.is_ipv4() == address.is_ipv4();
        let source = source.into_iter().find(of_family)?;
        let to = SocketAddr::new(*address, pick(&self.ports, rng));
        Some(Attempt::into(source, to))
    }
}

/// `::6`, which only the pod itself reaches.
const PASSTHROUGH6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

fn pick<T: Copy>(all: &[T], rng: &mut Rng) -> T {
    all[rng.usize(..all.len())]
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|item| !item.is_empty())
}

/// A network's ends, and the addresses beside them.
fn around(network: IpNet) -> Vec<IpAddr> {
    let (first, last) = (network.network(), network.broadcast());
    vec![first, last, step(first, false), step(last, true)]
}

/// The next address, or the one before.
fn step(address: IpAddr, up: bool) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let step = if up { 1 } else { u32::MAX };
            Ipv4Addr::from_bits(v4.to_bits().wrapping_add(step)).into()
        }
        IpAddr::V6(v6) => {
            let step = if up { 1 } else { u128::MAX };
            Ipv6Addr::from_bits(v6.to_bits().wrapping_add(step)).into()
        }
    }
}

fn is_ordinary(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_multicast() && !v4.is_broadcast(),
        IpAddr::V6(v6) => {
            !v6.is_multicast() && !v6.is_unicast_link_local() && v6.to_ipv4_mapped().is_none()
        }
    }
}
