//! Random lists of networks, ports and groups.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fastrand::Rng;
use ipnet::IpNet;

/// Between one and `most` networks, of which most have host bits. Loopback is
/// now and then among them.
pub(crate) fn networks(rng: &mut Rng, most: usize) -> String {
    let network = |rng: &mut Rng| {
        let address = address(rng);
        let bits = match address {
            // Wider ones are left to Istio: it is not clear whether they are loopback.
            IpAddr::V4(v4) if v4.is_loopback() => rng.u8(8..=32),
            IpAddr::V4(_) => rng.u8(1..=32),
            IpAddr::V6(_) => rng.u8(1..=128),
        };
        let network = IpNet::new(address, bits).expect("as many bits as there are");
        network.to_string()
    };
    join(rng, most, network)
}

/// Between one and `most` ports and ranges.
pub(crate) fn ports(rng: &mut Rng, most: usize) -> String {
    let port = |rng: &mut Rng| {
        let first = port(rng);
        if rng.u8(..4) == 0 {
            let last = first.saturating_add(rng.u16(..2000));
            format!("{first}:{last}")
        } else {
            first.to_string()
        }
    };
    join(rng, most, port)
}

/// Between one and `most` groups, of which Istio takes no more than 64.
pub(crate) fn groups(rng: &mut Rng, most: usize) -> String {
    let group = |rng: &mut Rng| match rng.u8(..4) {
        0 => rng.u32(..u32::MAX).to_string(),
        _ => (1000 + rng.u32(..8) * 1001).to_string(),
    };
    join(rng, most.min(64), group)
}

/// An address of one of a few neighbourhoods, so that networks and destinations meet.
pub(crate) fn address(rng: &mut Rng) -> IpAddr {
    let low = rng.u16(..);
    let [high, low] = low.to_be_bytes();
    match rng.u8(..16) {
        0..=6 => Ipv4Addr::new(10, rng.u8(..4), high & 3, low).into(),
        7 => Ipv4Addr::new(127, 0, 0, low).into(),
        8 | 9 => Ipv4Addr::new(192, 0, 2, low).into(),
        10 | 11 => Ipv4Addr::new(rng.u8(1..224), rng.u8(..), high, low).into(),
        _ => {
            let last = u16::from(rng.u8(..));
            Ipv6Addr::new(0xfd00 | last & 3, 0, u16::from(high & 1), 0, 0, 0, 0, last).into()
        }
    }
}

/// Mostly one that some rule speaks of.
pub(crate) fn port(rng: &mut Rng) -> u16 {
    const KNOWN: [u16; 12] = [
        22, 53, 80, 443, 8080, 8443, 15001, 15006, 15008, 15020, 15053, 15090,
    ];
    match rng.u8(..3) {
        0 => KNOWN[rng.usize(..KNOWN.len())],
        1 => rng.u16(1..1024),
        _ => rng.u16(1..),
    }
}

/// Now and then with an empty item, as lists that were put together have.
fn join(rng: &mut Rng, most: usize, mut item: impl FnMut(&mut Rng) -> String) -> String {
    let count = rng.usize(1..=most);
    let items: Vec<_> = (0..count)
        .map(|_| {
            let item = item(rng);
            if rng.u8(..16) == 0 { item + "," } else { item }
        })
        .collect();
    items.join(",")
}
