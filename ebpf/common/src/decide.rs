//! Both decision lists: what Istio's rules do to a connection, row by row.
//!
//! Source: `tools/istio-iptables/pkg/capture/run.go` of Istio, which writes the chains `ISTIO_OUTPUT` and
//! `ISTIO_INBOUND` in this order, and `tools/istio-nftables/pkg/capture/run.go`, where one table is both families'.

use crate::{
    Addr, AddrSet, DNS_PORT, GroupSet, PodRecord, PortSet, Row,
    pod::{
        DNS, DNS_ALL, GROUPS_EXCLUDED, GROUPS_LISTED, INBOUND_ALL, INBOUND_ANY, INCLUDE_ALL,
        INCLUDE_LOOPBACK, IPV6_UNNAMED, ONE_ADDRESS4, OUT_ADDRS_EXCLUDED, OUT_ADDRS_INCLUDED,
        OUT_PORTS_EXCLUDED, OUT_PORTS_INCLUDED,
    },
};

/// The pod's sets. In the kernel these are tries; a host may use vectors.
pub trait Lookups {
    /// Whether `port` is in `set`.
    fn port(&self, set: PortSet, port: u16) -> bool;
    /// Whether `addr` is in `set`.
    fn addr(&self, set: AddrSet, addr: &Addr) -> bool;
    /// Whether `gid` is in `set`.
    fn group(&self, set: GroupSet, gid: u32) -> bool;
}

/// The protocols that Istio's rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proto {
    /// TCP, MPTCP included.
    Tcp,
    /// UDP.
    Udp,
}

/// A connection about to be made, or a datagram about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// TCP or UDP.
    pub proto: Proto,
    /// Destination, never unspecified (see [`Addr::meant_from`]).
    pub dst: Addr,
    /// Destination port, host byte order.
    pub port: u16,
    /// The address the socket is bound to, or unspecified.
    pub bound: Addr,
    /// Whether [`Self::dst`] is an address of this pod; see [`is_local`].
    pub local: bool,
    /// The socket creator's filesystem uid.
    pub uid: u32,
    /// The socket creator's filesystem gid.
    pub gid: u32,
}

/// 127.0.0.6 and `::6`: what Istio's inbound passthrough cluster binds to (`InboundPassthroughBindIpv4`, `…Ipv6`).
const PASSTHROUGH4: Addr = Addr::v4(0x7f00_0006_u32.to_be());
const PASSTHROUGH6: Addr = Addr([0, 0, 0, 6_u32.to_be()]);

/// Whether `dst` is this pod itself: iptables' `-o lo`.
#[inline(always)]
pub fn is_local<L: Lookups>(pod: &PodRecord, sets: &L, dst: &Addr) -> bool {
    if dst.is_v4() && pod.has(ONE_ADDRESS4) {
        return dst.is_loopback() || dst.same(&pod.source4);
    }
    dst.is_loopback() || sets.addr(AddrSet::Local, dst)
}

/// What happens to a connection that the pod makes.
#[inline(always)]
pub fn outbound<L: Lookups>(pod: &PodRecord, sets: &L, a: &Attempt) -> Row {
    if !pod.captures(&a.dst) {
        return Row::OutFamily;
    }
    if pod.has(OUT_PORTS_EXCLUDED) && sets.port(PortSet::OutExclude, a.port) {
        return Row::OutPortExcluded;
    }
    let unnamed = pod.has(IPV6_UNNAMED) && !a.dst.is_v4();
    if a.local && !unnamed && is_passthrough(a) {
        return Row::OutPassthrough;
    }
    if let Some(row) = proxy(pod, a, unnamed) {
        return row;
    }
    if pod.has(GROUPS_LISTED) && !sets.group(GroupSet::Include, a.gid)
        || pod.has(GROUPS_EXCLUDED) && sets.group(GroupSet::Exclude, a.gid)
    {
        return Row::OutGroup;
    }
    if pod.has(DNS)
        && a.port == DNS_PORT
        && (pod.has(DNS_ALL) || sets.addr(AddrSet::DnsServers, &a.dst))
    {
        return Row::OutDns;
    }
    if !unnamed && pod.in_loopback(&a.dst) {
        return Row::OutLoopback;
    }
    if pod.has(OUT_ADDRS_EXCLUDED) && sets.addr(AddrSet::OutExclude, &a.dst) {
        return Row::OutAddrExcluded;
    }
    if a.proto == Proto::Tcp {
        if pod.has(OUT_PORTS_INCLUDED) && sets.port(PortSet::OutInclude, a.port) {
            return Row::OutPortIncluded;
        }
        if pod.has(INCLUDE_ALL)
            || pod.has(OUT_ADDRS_INCLUDED) && sets.addr(AddrSet::OutInclude, &a.dst)
        {
            return Row::OutAddrIncluded;
        }
    }
    Row::OutRest
}

/// Whether the kernel would have a packet come from 127.0.0.6 or `::6`. To `::6` an unbound socket has it as its source, too,
/// whereas 127.0.0.6 is reached from 127.0.0.1.
#[inline(always)]
const fn is_passthrough(a: &Attempt) -> bool {
    a.bound.same(&PASSTHROUGH4)
        || a.bound.same(&PASSTHROUGH6)
        || a.bound.is_unspecified() && a.dst.same(&PASSTHROUGH6)
}

/// Rows 3 to 5 for each uid in turn, then 6a to 6c for each gid: the order matters with several ids.
#[inline(always)]
fn proxy(pod: &PodRecord, a: &Attempt, unnamed: bool) -> Option<Row> {
    let dns = pod.has(DNS);
    let tcp = a.proto == Proto::Tcp;
    let not_dns = tcp && a.port != DNS_PORT;
    let to_self =
        a.local && tcp && !unnamed && !pod.in_loopback(&a.dst) && a.port != pod.tunnel_port;
    let straight = a.local && !pod.has(INCLUDE_LOOPBACK) && (!dns || not_dns);
    // The first id's rules end every local connection that row 4 (or 6b) passes: the other ids never see those.
    if straight && a.uid != pod.uids.first() {
        return Some(Row::OutLocalUid);
    }
    if pod.uids.hold(a.uid) {
        return Some(if to_self && (!dns || not_dns) {
            Row::OutSelfUid
        } else {
            Row::OutProxyUid
        });
    }
    // Here `straight` is false, so row 6b never is what decides: some uid is always set.
    if pod.gids.hold(a.gid) {
        return Some(if to_self {
            Row::OutSelfGid
        } else {
            Row::OutProxyGid
        });
    }
    None
}

/// What happens to a TCP connection that enters the pod from outside. Local flows never get here: they do not pass
/// iptables' `PREROUTING`.
#[inline(always)]
pub fn inbound<L: Lookups>(pod: &PodRecord, sets: &L, dst: &Addr, port: u16) -> Row {
    if !pod.captures(dst) {
        return Row::InFamily;
    }
    if !pod.has(INBOUND_ANY) {
        return Row::InNone;
    }
    if port == pod.tunnel_port {
        return Row::InTunnel;
    }
    let listed = sets.port(PortSet::Inbound, port);
    match (pod.has(INBOUND_ALL), listed) {
        (true, true) => Row::InExcluded,
        (true, false) => Row::InAll,
        (false, true) => Row::InIncluded,
        (false, false) => Row::InRest,
    }
}
