//! Compiled rules hold what the policy's lists hold, no more and no less.

mod common;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use common::{facts, policy, rules};
use ipnet::IpNet;
use proptest::prelude::*;
use sidestep_contract::{Include, PortRange};
use sidestep_ebpf_common::{AddrSet, Lookups as _, PortSet};
use sidestep_rules::addr;

/// Ports near each other, so that ranges overlap, touch, and are asked for at their edges.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![1_u16..64, 8000_u16..8070, 65_500_u16..=65_535, 1_u16..]
}

fn ranges() -> impl Strategy<Value = Vec<(u16, u16)>> {
    let range = (port(), port()).prop_map(|(a, b)| (a.min(b), a.max(b)));
    let single = port().prop_map(|port| (port, port));
    proptest::collection::vec(prop_oneof![range, single], 0..8)
}

fn v4() -> impl Strategy<Value = Ipv4Addr> {
    let near = (0_u32..1024).prop_map(|low| Ipv4Addr::from(0x0a00_0000 | low));
    prop_oneof![near, any::<u32>().prop_map(Ipv4Addr::from)]
}

fn v6() -> impl Strategy<Value = Ipv6Addr> {
    let near = (0_u128..1024, 0_u32..128).prop_map(|(low, shift)| {
        Ipv6Addr::from((0xfd00_u128 << 112) | low.checked_shl(shift).unwrap_or(0))
    });
    prop_oneof![near, any::<u128>().prop_map(Ipv6Addr::from)]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![v4().prop_map(IpAddr::V4), v6().prop_map(IpAddr::V6)]
}

fn networks() -> impl Strategy<Value = Vec<IpNet>> {
    let four = (v4(), 0_u8..=32).prop_map(|(address, bits)| IpNet::new(address.into(), bits));
    let six = (v6(), 0_u8..=128).prop_map(|(address, bits)| IpNet::new(address.into(), bits));
    let network = prop_oneof![four, six].prop_map(|net| net.expect("bits of the family").trunc());
    // IPv4 in IPv6 clothes: the contract leaves such pods.
    let network = network.prop_filter("IPv4-mapped", |net| match net.addr() {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => address.to_ipv4_mapped().is_none(),
    });
    proptest::collection::vec(network, 1..8)
}

fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    items.join(",")
}

proptest! {
    #[test]
    fn a_port_is_in_a_set_if_it_is_in_a_range(
        exclude in ranges(), include in ranges(), inbound in ranges(), ports in proptest::collection::vec(port(), 32),
    ) {
        let text = |ranges: &[(u16, u16)]| {
            let ranges: Vec<_> = ranges.iter().map(|(first, last)| format!("{first}:{last}")).collect();
            list(&ranges)
        };
        let init = format!(r#"-u 1337 -i * -b * -o "{}" -q "{}" -d "{}""#, text(&exclude), text(&include), text(&inbound));
        let policy = policy(&init, &[]);
        let rules = rules(&policy, &facts(&["10.0.0.5"], &[]));
        let edges = exclude.iter().chain(&include).chain(&inbound).flat_map(|(first, last)| {
            [first.saturating_sub(1), *first, *last, last.saturating_add(1)]
        });
        let ports: Vec<u16> = ports.into_iter().chain(edges).collect();
        for (set, ranges) in [
            (PortSet::OutExclude, &exclude),
            (PortSet::OutInclude, &include),
            (PortSet::Inbound, &inbound),
        ] {
            for port in &ports {
                let listed = ranges.iter().any(|(first, last)| {
                    PortRange::new(*first, *last).expect("a range").contains(*port)
                });
                prop_assert_eq!(rules.port(set, *port), listed, "{:?} {}", set, port);
            }
        }
    }

    #[test]
    fn an_address_is_in_a_set_if_it_is_in_a_network(
        exclude in networks(), include in networks(), own in address(), others in proptest::collection::vec(address(), 32),
    ) {
        let init = format!("-u 1337 -i={} -x={} -b *", list(&include), list(&exclude));
        let policy = policy(&init, &[]);
        prop_assert_eq!(&policy.include_cidrs, &Include::Only(include.clone()));
        let rules = rules(&policy, &facts(&[&own.to_string()], &[]));
        let edges = exclude.iter().chain(&include).flat_map(|net| [net.network(), net.broadcast()]);
        for address in others.into_iter().chain(edges).chain([own]) {
            let key = addr(address);
            // What the programs see of an address cannot tell these apart.
            let meant = IpAddr::to_canonical(&address);
            for (set, nets) in [(AddrSet::OutExclude, &exclude), (AddrSet::OutInclude, &include)] {
                let listed = nets.iter().any(|net| net.contains(&meant));
                prop_assert_eq!(rules.addr(set, &key), listed, "{:?} {}", set, address);
            }
            prop_assert_eq!(rules.addr(AddrSet::Local, &key), meant == own.to_canonical());
            prop_assert!(!rules.addr(AddrSet::DnsServers, &key));
        }
    }
}
