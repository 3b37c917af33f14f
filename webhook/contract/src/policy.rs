//! The policy of a pod: what must happen to its connections.

use std::num::NonZeroU16;

use ipnet::{IpNet, Ipv4Net};
use serde::Serialize;

use crate::PortRange;

/// Most proxy user ids, and most proxy group ids, that a policy holds.
pub const MAX_IDS: usize = 8;

/// Most owner groups in either list of [`Groups`]; Istio has the same limit for the included ones.
pub const MAX_GROUPS: usize = 64;

/// Everything that decides where a connection of one pod goes. `Display` gives it in short, on one line.
///
/// CIDRs have their host bits cleared; lists are in the order in which they were given, which decides nothing except
/// for the ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// `-p`: where the proxy takes outbound connections.
    pub outbound_port: NonZeroU16,
    /// `-z`: where the proxy takes inbound connections.
    pub inbound_port: NonZeroU16,
    /// `-e`: the tunnel port, which is never redirected inbound.
    pub tunnel_port: NonZeroU16,
    /// `-u`: the proxy's user ids, at least one, at most [`MAX_IDS`]; rules run through them in this order.
    pub proxy_uids: Vec<u32>,
    /// `-g`: the proxy's group ids, with the same limits.
    pub proxy_gids: Vec<u32>,
    /// `-b` and `-d`: the ports whose inbound connections the proxy takes.
    pub inbound: Inbound,
    /// `-i`: the destinations that are captured.
    pub include_cidrs: Include,
    /// `-x`: the destinations that are not, whatever `-i` and `-q` say.
    pub exclude_cidrs: Vec<IpNet>,
    /// `-o`: the outbound ports that are never captured, TCP and UDP.
    pub exclude_outbound_ports: Vec<PortRange>,
    /// `-q`: the outbound ports captured even where `-i` does not include the destination.
    pub include_outbound_ports: Vec<PortRange>,
    /// `ISTIO_OUTBOUND_OWNER_GROUPS` and `ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE`.
    pub groups: Groups,
    /// `ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR`: IPv4 destinations that are the application's own.
    pub loopback: Ipv4Net,
    /// `--redirect-dns` and `--capture-all-dns`.
    pub dns: Dns,
    /// `--dual-stack`: IPv6 is captured as soon as the pod has any IPv6 address.
    pub dual_stack: bool,
    /// `--native-nftables`: rules that name no address family hold for IPv6, too, where IPv6 is not captured otherwise.
    pub native_nftables: bool,
    /// `--iptables-probe-port`: the port on 127.0.0.6 that the gate dials to see whether it is captured.
    pub probe_port: NonZeroU16,
}

/// Which inbound ports are captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Inbound {
    /// Every port but these.
    AllExcept(Vec<PortRange>),
    /// These ports; none if empty.
    Only(Vec<PortRange>),
}

/// Which destinations are captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Include {
    /// Every destination.
    All,
    /// Destinations in these networks; none if empty.
    Only(Vec<IpNet>),
}

/// The groups whose connections are captured, by the group of the socket's creator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Groups {
    /// The groups whose connections are captured.
    pub include: GroupSet,
    /// The groups whose connections are not captured. Empty unless all are included: Istio ignores the list otherwise.
    pub exclude: Vec<u32>,
}

/// A set of groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupSet {
    /// Every group.
    All,
    /// These groups; none if empty.
    Only(Vec<u32>),
}

/// Which DNS queries go to the proxy's resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dns {
    /// None.
    Off,
    /// Those to the name servers in the pod's `resolv.conf`.
    ToServers,
    /// All of them.
    All,
}

impl Policy {
    /// Whether `-i` names a loopback prefix, which captures connections of the pod to itself.
    pub fn includes_loopback(&self) -> bool {
        match &self.include_cidrs {
            Include::All => false,
            Include::Only(cidrs) => cidrs.iter().any(|cidr| cidr.addr().is_loopback()),
        }
    }
}
