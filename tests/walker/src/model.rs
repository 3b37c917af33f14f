//! Rules as values, the same for both of their spellings.

use std::{collections::BTreeMap, net::IpAddr, ops::RangeInclusive};

use ipnet::IpNet;

use crate::{Packet, Protocol, Way};

/// One NAT table: its chains by name, and which of them are at the hooks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) chains: BTreeMap<String, Vec<Rule>>,
    /// The chain at `OUTPUT`.
    pub(crate) output: Option<String>,
    /// The chain at `PREROUTING`.
    pub(crate) prerouting: Option<String>,
}

/// A rule: what it asks, and what is done if all of that is so.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) text: String,
    pub(crate) matches: Vec<Match>,
    pub(crate) target: Target,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// On in the chain that jumped here; at the end of a hook's chain: nothing is changed.
    Return,
    /// Nothing is changed, and no further rule is asked.
    Accept,
    /// On in another chain, and afterwards with the next rule.
    Jump(String),
    /// To this port of this host.
    Redirect(u16),
}

/// One question of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) negated: bool,
    pub(crate) test: Test,
}

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    /// The protocol.
    Protocol(Protocol),
    /// The address family, which `nft` implies where a rule looks into an address. Never negated.
    Ipv6(bool),
    /// The source address.
    Source(IpNet),
    /// The destination address.
    Destination(IpNet),
    /// The destination port, in any of these.
    Ports(Vec<RangeInclusive<u16>>),
    /// The uid of the socket's creator.
    Uid(u32),
    /// The gid of the socket's creator.
    Gid(u32),
    /// Whether the packet leaves by `lo`.
    Loopback,
}

impl Rule {
    pub(crate) fn matches(&self, packet: &Packet) -> bool {
        self.matches.iter().all(|it| it.holds(packet))
    }
}

impl Match {
    pub(crate) const fn new(negated: bool, test: Test) -> Self {
        Self { negated, test }
    }

    fn holds(&self, packet: &Packet) -> bool {
        self.test.holds(packet) != self.negated
    }
}

impl Test {
    fn holds(&self, packet: &Packet) -> bool {
        match self {
            Self::Protocol(protocol) => packet.protocol == *protocol,
            Self::Ipv6(is) => packet.destination.is_ipv6() == *is,
            Self::Source(net) => net.contains(&packet.source),
            Self::Destination(net) => net.contains(&packet.destination.ip()),
            Self::Ports(ranges) => {
                let port = packet.destination.port();
                ranges.iter().any(|range| range.contains(&port))
            }
            Self::Uid(id) => matches!(packet.way, Way::Out { uid, .. } if uid == *id),
            Self::Gid(id) => matches!(packet.way, Way::Out { gid, .. } if gid == *id),
            Self::Loopback => matches!(packet.way, Way::Out { loopback: true, .. }),
        }
    }
}

/// A network, or an address alone.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| address()).ok()
}
