//! The decision lists, row by row: each test names the row that it pins down.

use std::net::IpAddr;

use proptest::prelude::*;
use sidestep_ebpf_common::{
    Addr, AddrSet, Attempt, GroupSet, Ids, Lookups, PodRecord, PortSet, Proto, Row, Verdict,
    decide::is_local,
    inbound, outbound,
    pod::{
        DNS, DNS_ALL, GROUPS_EXCLUDED, GROUPS_LISTED, INBOUND_ALL, INBOUND_ANY, INCLUDE_ALL,
        INCLUDE_LOOPBACK, IPV6, IPV6_UNNAMED, OUT_ADDRS_EXCLUDED, OUT_ADDRS_INCLUDED,
        OUT_PORTS_EXCLUDED, OUT_PORTS_INCLUDED,
    },
};

const PROXY: u32 = 1337;
const APP: u32 = 1000;

/// Sets as plain lists: the host's stand-in for the kernel's tries.
#[derive(Default)]
struct Sets {
    ports: Vec<(PortSet, u16)>,
    addrs: Vec<(AddrSet, Addr)>,
    groups: Vec<(GroupSet, u32)>,
}

impl Lookups for Sets {
    fn port(&self, set: PortSet, port: u16) -> bool {
        self.ports.contains(&(set, port))
    }
    fn addr(&self, set: AddrSet, addr: &Addr) -> bool {
        self.addrs.contains(&(set, *addr))
    }
    fn group(&self, set: GroupSet, gid: u32) -> bool {
        self.groups.contains(&(set, gid))
    }
}

/// A pod with Istio's defaults at 10.0.0.5.
struct Pod {
    record: PodRecord,
    sets: Sets,
}

fn addr(text: &str) -> Addr {
    match text.parse().expect("an address") {
        IpAddr::V4(ip) => Addr::v4(u32::from(ip).to_be()),
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            let (words, _) = octets.as_chunks::<4>();
            Addr(std::array::from_fn(|i| u32::from_ne_bytes(words[i])))
        }
    }
}

fn ids(ids: &[u32]) -> Ids {
    Ids::new(ids).expect("one to eight ids")
}

fn pod() -> Pod {
    let mut record = PodRecord::new(1, ids(&[PROXY]), ids(&[PROXY]));
    record.flags = INBOUND_ALL | INBOUND_ANY | INCLUDE_ALL | IPV6;
    record.outbound_port = 15001;
    record.inbound_port = 15006;
    record.tunnel_port = 15008;
    record.loopback = 0x7f00_0001_u32.to_be();
    record.loopback_mask = u32::MAX;
    let mut sets = Sets::default();
    sets.addrs.push((AddrSet::Local, addr("10.0.0.5")));
    sets.addrs.push((AddrSet::Local, addr("fd00::5")));
    sets.addrs.push((AddrSet::Local, addr("::6")));
    Pod { record, sets }
}

impl Pod {
    fn with(mut self, flags: u32) -> Self {
        self.record.flags |= flags;
        self
    }
    fn without(mut self, flags: u32) -> Self {
        self.record.flags &= !flags;
        self
    }
    fn port(mut self, set: PortSet, port: u16) -> Self {
        self.sets.ports.push((set, port));
        self
    }
    fn addr(mut self, set: AddrSet, text: &str) -> Self {
        self.sets.addrs.push((set, addr(text)));
        self
    }
    fn group(mut self, set: GroupSet, gid: u32) -> Self {
        self.sets.groups.push((set, gid));
        self
    }
    fn ids(mut self, uids: &[u32], gids: &[u32]) -> Self {
        self.record.uids = ids(uids);
        self.record.gids = ids(gids);
        self
    }
    fn out(&self, proto: Proto, to: &str, port: u16, uid: u32, gid: u32, bound: &str) -> Row {
        let dst = addr(to).meant_from(&addr(bound));
        let attempt = Attempt {
            proto,
            dst,
            port,
            bound: addr(bound),
            local: is_local(&self.record, &self.sets, &dst),
            uid,
            gid,
        };
        outbound(&self.record, &self.sets, &attempt)
    }
    fn app(&self, to: &str, port: u16) -> Row {
        self.out(Proto::Tcp, to, port, APP, APP, "::")
    }
    fn app_udp(&self, to: &str, port: u16) -> Row {
        self.out(Proto::Udp, to, port, APP, APP, "::")
    }
    fn proxy(&self, to: &str, port: u16) -> Row {
        self.out(Proto::Tcp, to, port, PROXY, PROXY, "::")
    }
    fn in_from_outside(&self, to: &str, port: u16) -> Row {
        inbound(&self.record, &self.sets, &addr(to), port)
    }
}

#[test]
fn row_1_an_excluded_outbound_port_passes_for_tcp_and_udp_and_any_user() {
    let pod = pod()
        .with(OUT_PORTS_EXCLUDED | DNS | DNS_ALL)
        .port(PortSet::OutExclude, 53)
        .port(PortSet::OutExclude, 8080);
    assert_eq!(pod.app("10.9.9.9", 8080), Row::OutPortExcluded);
    assert_eq!(pod.app_udp("10.9.9.9", 53), Row::OutPortExcluded);
    assert_eq!(pod.proxy("10.0.0.5", 8080), Row::OutPortExcluded);
}

#[test]
fn row_2_the_proxy_reaches_its_application_from_127_0_0_6_and_from_6() {
    let out = |to, bound| pod().out(Proto::Tcp, to, 8080, PROXY, PROXY, bound);
    assert_eq!(out("10.0.0.5", "127.0.0.6"), Row::OutPassthrough);
    assert_eq!(out("fd00::5", "::6"), Row::OutPassthrough);
    assert_eq!(out("10.9.9.9", "127.0.0.6"), Row::OutProxyUid);
    // Without an address of its own a socket has ::6 as its source to ::6, and 127.0.0.1 to 127.0.0.6.
    assert_eq!(pod().proxy("::6", 15002), Row::OutPassthrough);
    assert_eq!(pod().app("::6", 8080), Row::OutPassthrough);
}

/// Of a pod whose IPv6 only those rules capture that name no family.
#[test]
fn rows_2_3_6a_and_9_name_a_family() {
    let pod = || pod().with(IPV6_UNNAMED);
    let proxy = |to, bound| pod().out(Proto::Tcp, to, 8080, PROXY, PROXY, bound);
    assert_eq!(proxy("fd00::5", "::6"), Row::OutProxyUid);
    assert_eq!(proxy("fd00::5", "::"), Row::OutProxyUid);
    assert_eq!(proxy("10.0.0.5", "127.0.0.6"), Row::OutPassthrough);
    assert_eq!(proxy("10.0.0.5", "::"), Row::OutSelfUid);
    let loopback = |to| pod().with(INCLUDE_LOOPBACK).app(to, 8080);
    assert_eq!(loopback("::1"), Row::OutAddrIncluded);
    assert_eq!(loopback("127.0.0.1"), Row::OutLoopback);
}

#[test]
fn row_3_the_proxy_to_its_own_pod_comes_in_again() {
    assert_eq!(pod().proxy("10.0.0.5", 8080), Row::OutSelfUid);
    assert_eq!(pod().proxy("127.0.0.2", 8080), Row::OutSelfUid);
    assert_eq!(pod().proxy("127.0.0.6", 15002), Row::OutSelfUid);
    let from_loopback = pod().out(Proto::Tcp, "::6", 15002, PROXY, PROXY, "::1");
    assert_eq!(from_loopback, Row::OutSelfUid);
    assert_eq!(pod().proxy("10.0.0.5", 15008), Row::OutProxyUid);
    assert_eq!(pod().proxy("127.0.0.1", 8080), Row::OutProxyUid);
    assert_eq!(
        pod().with(DNS | DNS_ALL).proxy("10.0.0.5", 53),
        Row::OutProxyUid
    );
}

#[test]
fn row_4_the_application_to_its_own_pod_goes_straight() {
    for to in [
        "10.0.0.5",
        "127.0.0.1",
        "127.0.0.2",
        "0.0.0.0",
        "::1",
        "::",
        "fd00::5",
        "::ffff:10.0.0.5",
    ] {
        assert_eq!(pod().app(to, 8080), Row::OutLocalUid, "{to}");
    }
    let dns = pod().with(DNS | DNS_ALL);
    assert_eq!(dns.app("127.0.0.1", 53), Row::OutDns);
    assert_eq!(dns.app_udp("10.0.0.5", 9999), Row::OutRest);
    assert_eq!(dns.app("10.0.0.5", 8080), Row::OutLocalUid);
    let loopback = pod().with(INCLUDE_LOOPBACK);
    assert_eq!(loopback.app("10.0.0.5", 8080), Row::OutAddrIncluded);
    assert_eq!(loopback.app("127.0.0.1", 8080), Row::OutLoopback);
}

#[test]
fn the_unspecified_address_is_the_sockets_own_or_loopback() {
    let out = |to, bound| pod().out(Proto::Tcp, to, 8080, PROXY, PROXY, bound);
    assert_eq!(out("0.0.0.0", "10.0.0.5"), Row::OutSelfUid);
    assert_eq!(out("0.0.0.0", "::"), Row::OutProxyUid);
    assert_eq!(out("::", "fd00::5"), Row::OutProxyUid);
}

#[test]
fn row_5_everything_else_of_the_proxy_passes() {
    assert_eq!(pod().proxy("10.9.9.9", 80), Row::OutProxyUid);
    let udp = pod()
        .with(DNS | DNS_ALL)
        .out(Proto::Udp, "10.0.0.53", 53, PROXY, 0, "::");
    assert_eq!(udp, Row::OutProxyUid);
}

#[test]
fn row_6_a_proxy_known_by_its_group_is_the_proxy() {
    // Without loopback in -i, row 4 takes every local connection of another uid first.
    let out = |pod: &Pod, to, port| pod.out(Proto::Tcp, to, port, 0, PROXY, "::");
    assert_eq!(out(&pod(), "10.9.9.9", 80), Row::OutProxyGid);
    assert_eq!(out(&pod(), "10.0.0.5", 80), Row::OutLocalUid);
    let loopback = pod().with(INCLUDE_LOOPBACK);
    assert_eq!(out(&loopback, "10.0.0.5", 80), Row::OutSelfGid);
    assert_eq!(out(&loopback, "10.0.0.5", 15008), Row::OutProxyGid);
    // Unlike row 3, 6a takes port 53 too.
    assert_eq!(
        out(&pod().with(DNS | DNS_ALL), "10.0.0.5", 53),
        Row::OutSelfGid
    );
}

#[test]
fn with_several_ids_the_first_decides_what_is_straight() {
    let pod = pod().ids(&[PROXY, 2000], &[PROXY, 3000]);
    let out = |uid, gid, to| pod.out(Proto::Tcp, to, 80, uid, gid, "::");
    assert_eq!(out(2000, 0, "10.0.0.5"), Row::OutLocalUid);
    assert_eq!(out(2000, 0, "10.9.9.9"), Row::OutProxyUid);
    assert_eq!(out(0, 3000, "10.9.9.9"), Row::OutProxyGid);
    assert_eq!(out(PROXY, 0, "10.0.0.5"), Row::OutSelfUid);
}

#[test]
fn row_7_owner_groups() {
    let listed = pod().with(GROUPS_LISTED).group(GroupSet::Include, 202);
    let out = |pod: &Pod, gid| pod.out(Proto::Tcp, "10.9.9.9", 80, APP, gid, "::");
    assert_eq!(out(&listed, 202), Row::OutAddrIncluded);
    assert_eq!(out(&listed, 203), Row::OutGroup);
    let excluded = pod().with(GROUPS_EXCLUDED).group(GroupSet::Exclude, 202);
    assert_eq!(out(&excluded, 202), Row::OutGroup);
    assert_eq!(out(&excluded, 203), Row::OutAddrIncluded);
}

#[test]
fn row_8_dns_is_captured_to_known_servers_or_to_all() {
    let servers = pod().with(DNS).addr(AddrSet::DnsServers, "10.0.0.53");
    assert_eq!(servers.app_udp("10.0.0.53", 53), Row::OutDns);
    assert_eq!(servers.app("10.0.0.53", 53), Row::OutDns);
    assert_eq!(servers.app_udp("8.8.8.8", 53), Row::OutRest);
    assert_eq!(servers.app_udp("10.0.0.53", 5353), Row::OutRest);
    assert_eq!(
        pod().with(DNS | DNS_ALL).app_udp("8.8.8.8", 53),
        Row::OutDns
    );
    assert_eq!(pod().app_udp("10.0.0.53", 53), Row::OutRest);
}

#[test]
fn rows_9_to_13_destinations() {
    let some = pod()
        .without(INCLUDE_ALL)
        .with(OUT_ADDRS_INCLUDED | OUT_ADDRS_EXCLUDED | OUT_PORTS_INCLUDED)
        .addr(AddrSet::OutInclude, "10.1.1.1")
        .addr(AddrSet::OutInclude, "10.2.2.2")
        .addr(AddrSet::OutExclude, "10.2.2.2")
        .port(PortSet::OutInclude, 9443);
    assert_eq!(some.app("10.1.1.1", 80), Row::OutAddrIncluded);
    assert_eq!(some.app("10.2.2.2", 9443), Row::OutAddrExcluded);
    assert_eq!(some.app("10.3.3.3", 9443), Row::OutPortIncluded);
    assert_eq!(some.app("10.3.3.3", 80), Row::OutRest);
    assert_eq!(some.app_udp("10.1.1.1", 9443), Row::OutRest);
    assert_eq!(pod().app("10.9.9.9", 80), Row::OutAddrIncluded);
    assert_eq!(pod().app("::ffff:10.9.9.9", 80), Row::OutAddrIncluded);
}

#[test]
fn ipv6_passes_where_it_is_not_captured_and_mapped_addresses_are_ipv4() {
    let v4_only = pod().without(IPV6);
    assert_eq!(v4_only.app("2001:db8::1", 80), Row::OutFamily);
    assert_eq!(v4_only.app("::ffff:10.9.9.9", 80), Row::OutAddrIncluded);
    assert_eq!(v4_only.in_from_outside("fd00::5", 80), Row::InFamily);
    assert_eq!(pod().app("2001:db8::1", 80), Row::OutAddrIncluded);
}

#[test]
fn inbound_rows() {
    let all = pod().port(PortSet::Inbound, 15020);
    assert_eq!(all.in_from_outside("10.0.0.5", 8080), Row::InAll);
    assert_eq!(all.in_from_outside("10.0.0.5", 15006), Row::InAll);
    assert_eq!(all.in_from_outside("10.0.0.5", 15020), Row::InExcluded);
    assert_eq!(all.in_from_outside("10.0.0.5", 15008), Row::InTunnel);
    let list = pod().without(INBOUND_ALL).port(PortSet::Inbound, 8080);
    assert_eq!(list.in_from_outside("10.0.0.5", 8080), Row::InIncluded);
    assert_eq!(list.in_from_outside("10.0.0.5", 8081), Row::InRest);
    let none = pod().without(INBOUND_ALL | INBOUND_ANY);
    assert_eq!(none.in_from_outside("10.0.0.5", 8080), Row::InNone);
}

#[test]
fn every_row_has_a_name_of_its_own() {
    let mut names: Vec<&str> = Row::ALL.iter().map(|row| row.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Row::ALL.len());
    for (index, row) in Row::ALL.iter().enumerate() {
        assert_eq!(*row as usize, index);
    }
}

proptest! {
    /// What must never happen, whatever else is set: the proxy's own traffic to elsewhere comes back to it for ever.
    #[test]
    fn the_proxy_is_never_sent_to_its_own_outbound_port(
        flags in any::<u32>(), port in 1_u16.., ip in any::<u32>(), udp in any::<bool>(),
    ) {
        let mut pod = pod();
        pod.record.flags = flags;
        let dst = Addr::v4(ip).meant_from(&Addr::UNSPECIFIED);
        let attempt = Attempt {
            proto: if udp { Proto::Udp } else { Proto::Tcp },
            dst, port, bound: Addr::UNSPECIFIED, local: is_local(&pod.record, &pod.sets, &dst), uid: PROXY, gid: PROXY,
        };
        let verdict = outbound(&pod.record, &pod.sets, &attempt).verdict();
        prop_assert!(matches!(verdict, Verdict::Pass | Verdict::Inbound));
        prop_assert!(verdict == Verdict::Pass || attempt.local && !udp);
    }

    /// Only DNS is ever redirected among datagrams.
    #[test]
    fn datagrams_are_redirected_only_to_the_dns_proxy(
        flags in any::<u32>(), port in any::<u16>(), ip in any::<u32>(), uid in any::<u32>(),
    ) {
        let mut pod = pod();
        pod.record.flags = flags;
        let dst = Addr::v4(ip).meant_from(&Addr::UNSPECIFIED);
        let attempt = Attempt {
            proto: Proto::Udp,
            dst, port, bound: Addr::UNSPECIFIED, local: is_local(&pod.record, &pod.sets, &dst), uid, gid: uid,
        };
        let row = outbound(&pod.record, &pod.sets, &attempt);
        prop_assert!(row.verdict() == Verdict::Pass || row == Row::OutDns && port == 53);
    }
}
