//! Every kind of caller calls every kind of destination, under each fixture's rules and under Sidestep: what happens must be
//! what all four answers say.

use std::net::IpAddr;

use sidestep_kit::{
    actor::Identity,
    needs,
    net::{OUTSIDE_V4, OUTSIDE_V6},
    redirect::{Node, Redirect},
};
use sidestep_oracle::{host::State, ours::Ours};
use sidestep_walker::Rules;

use crate::{
    POD,
    calls::{Call, How},
    four::{Predictions, Table, answer_for_everybody},
    world::{INBOUND, NEIGHBOUR, PORTS, World, policy_of},
};

const POD6: &str = "fd77::10";
/// The name server in the `resolv.conf` for which the fixtures' rules were recorded.
const NAME_SERVER: &str = "10.77.0.53";
/// Where every fixture's proxy listens.
const OUTBOUND: u16 = 15001;
const INBOUND_CAPTURE: u16 = 15006;

macro_rules! fixtures {
    ($($name:ident: $fixture:literal, $addresses:expr, $proxy:expr;)*) => {
        $(#[needs(root, "iptables-nft-restore", "ip6tables-nft-restore")]
        fn $name() {
            compare($fixture, &$addresses, &$proxy);
        })*
    };
}

fixtures! {
    the_default_policy: "client", [POD], Identity::proxy();
    excluded_ports_and_ranges: "exclude", [POD], Identity::proxy();
    excluded_ports_with_blanks: "exclude-wide", [POD], Identity::proxy();
    excluded_ranges_of_ports: "port-ranges", [POD], Identity::proxy();
    lists_of_the_whole_installation: "port-ranges-installed", [POD], Identity::proxy();
    an_excluded_port_of_captured_dns: "exclude-dns-port", [POD], Identity::proxy();
    only_included_ports: "include-outbound-ports", [POD], Identity::proxy();
    nothing_on_the_way_out: "include-outbound-ports-none", [POD], Identity::proxy();
    only_included_inbound_ports: "include-inbound-ports", [POD], Identity::proxy();
    only_ipv6_networks: "include-ipv6", [POD, POD6], Identity::proxy();
    wildcards_and_what_is_taken_from_them: "include-wildcards", [POD], Identity::proxy();
    another_tunnel_port: "tunnel", [POD], Identity::proxy();
    further_groups_of_the_proxy: "environment", [POD], Identity::proxy();
    included_ports_and_ranges: "include", [POD], Identity::proxy();
    no_inbound_ports: "include-ports-none", [POD], Identity::proxy();
    dns_of_listed_servers: "dns", [POD], Identity::proxy();
    dns_of_all_servers: "dns-all", [POD], Identity::proxy();
    an_included_loopback_range: "loopback", [POD], Identity::proxy();
    another_loopback_range: "loopback-cidr", [POD], Identity::proxy();
    a_proxy_of_another_user: "other-uid", [POD], Identity::new(2102, 2102);
    a_proxy_as_root: "uid0", [POD], Identity::new(0, 1337);
    captured_groups: "owner-groups", [POD], Identity::proxy();
    excluded_groups: "owner-groups-exclude", [POD], Identity::proxy();
    no_groups: "owner-groups-none", [POD], Identity::proxy();
    both_families_captured: "dual-stack", [POD, POD6], Identity::proxy();
    both_families_and_one_captured: "ipv4-first", [POD, POD6], Identity::proxy();
    only_ipv6: "ipv6", [POD6], Identity::proxy();
}

fn compare(fixture: &str, addresses: &[&str], proxy: &Identity) {
    let [istio, sidestep] = [Redirect::Iptables, Redirect::Sidestep].map(|redirect| {
        let node = Node::new(redirect);
        answer_for_everybody(&node);
        let pod = node.pod(fixture, addresses);
        World::new(node, pod, proxy, OUTBOUND, INBOUND_CAPTURE)
    });
    let namespace = istio.pod().namespace();
    let rules = istio.pod().fixture().rules();
    let state = State::read(namespace, &[NAME_SERVER]);
    let predictions = Predictions {
        namespace,
        rules: Rules::of_iptables(&rules.v4, &rules.v6).expect("rules of which all is known"),
        ours: Ours::compile(policy_of(istio.pod()), &state).expect("rules of ours"),
        outbound: OUTBOUND,
        inbound: INBOUND_CAPTURE,
    };
    let calls = calls(addresses);
    let mut table = Table::default();
    table.add(&calls, [&istio, &sidestep], &predictions);
    assert!(table.calls() > 100, "{} calls", table.calls());
    table.assert_equal(fixture);
}

/// Calls by everybody, of every kind, to everywhere.
fn calls(addresses: &[&str]) -> Vec<Call> {
    let speaks = |address: &str| match ip(address) {
        IpAddr::V4(_) => addresses.contains(&POD),
        IpAddr::V6(_) => addresses.contains(&POD6),
    };
    let mut calls = Vec::new();
    for who in identities() {
        let mut call = |how, bound: Option<&str>, to: IpAddr, port| {
            calls.push(Call {
                who: Some(who.clone()),
                how,
                bound: bound.map(ip),
                to: (to, port).into(),
            });
        };
        for (to, port, near) in destinations(&speaks) {
            let (passthrough, own) = if to.is_ipv6() {
                ("::6", POD6)
            } else {
                ("127.0.0.6", POD)
            };
            call(How::Tcp, None, to, port);
            call(How::Mptcp, None, to, port);
            if [80, 8080].contains(&port) {
                call(How::FastOpen, None, to, port);
            }
            if near || !to.is_ipv6() {
                call(How::Tcp, Some(passthrough), to, port);
            }
            if near {
                call(How::Tcp, Some(own), to, port);
            }
        }
        for server in NEIGHBOUR.into_iter().filter(|server| speaks(server)) {
            for connected in [false, true] {
                call(How::Udp { connected }, None, ip(server), 53);
            }
        }
    }
    for target in [POD, POD6].into_iter().filter(|target| speaks(target)) {
        for port in INBOUND {
            calls.push(Call {
                who: None,
                how: How::Tcp,
                bound: None,
                to: (ip(target), port).into(),
            });
        }
    }
    calls
}

/// Each with whether it is in the pod itself.
fn destinations(speaks: &impl Fn(&str) -> bool) -> Vec<(IpAddr, u16, bool)> {
    let mut destinations = Vec::new();
    let far = [OUTSIDE_V4, OUTSIDE_V6].into_iter().chain(NEIGHBOUR);
    for address in far.filter(|address| speaks(address)) {
        destinations.extend(PORTS.map(|port| (ip(address), port, false)));
        if let IpAddr::V4(v4) = ip(address) {
            destinations.push((v4.to_ipv6_mapped().into(), 80, false));
        }
    }
    let near = [
        POD,
        POD6,
        "127.0.0.1",
        "127.0.0.2",
        "127.9.9.9",
        "0.0.0.0",
        "::1",
        "::",
    ];
    for address in near.into_iter().filter(|address| speaks(address)) {
        destinations.extend([53, 4000, 8080, 15008].map(|port| (ip(address), port, true)));
    }
    destinations
}

fn identities() -> Vec<Identity> {
    vec![
        Identity::app(),
        Identity::new(0, 0),
        Identity::proxy(),
        Identity::new(1337, 1000),
        Identity::new(0, 1337),
        Identity::new(2102, 2102),
        Identity::new(1000, 2001),
        Identity::app().acting_as(1337),
    ]
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
