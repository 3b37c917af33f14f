//! Prefixes of the kernel's tries, and how ranges and networks become such.

use ipnet::IpNet;
use sidestep_contract::PortRange;
use sidestep_ebpf_common::{AddrKey, AddrSet, PortKey, PortSet};

use crate::addr;

/// A prefix of a trie: its length in bits, and its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix<K> {
    /// In bits of the whole key.
    pub length: u32,
    /// The key; bits past the length are zero.
    pub key: K,
}

impl Prefix<AddrKey> {
    /// A network in a set of policy `rules`.
    pub(crate) fn of_net(rules: u32, set: AddrSet, net: &IpNet) -> Self {
        let mapped = if net.addr().is_ipv4() {
            AddrKey::MAPPED
        } else {
            0
        };
        Self {
            length: AddrKey::HEAD + mapped + u32::from(net.prefix_len()),
            key: AddrKey::new(rules, set, &addr(net.network())),
        }
    }
}

impl Prefix<PortKey> {
    /// Ranges of ports in a set of policy `rules`, as the fewest prefixes. There are at most 65,536 of them, however many
    /// ranges a policy names.
    pub(crate) fn of_ranges(
        rules: u32,
        set: PortSet,
        ranges: &[PortRange],
    ) -> impl Iterator<Item = Self> {
        let blocks = merged(ranges)
            .into_iter()
            .flat_map(|(first, last)| blocks(first, last));
        blocks.map(move |(port, bits)| Self {
            length: PortKey::FULL - 16 + bits,
            key: PortKey::new(rules, set, port),
        })
    }
}

/// The same ports as ranges (first, last) that neither overlap nor touch, in order.
fn merged(ranges: &[PortRange]) -> Vec<(u16, u16)> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for PortRange { first, last, .. } in sorted {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// A range of ports as the fewest prefixes: (first port, bits).
fn blocks(first: u16, last: u16) -> impl Iterator<Item = (u16, u32)> {
    let (mut next, last) = (u32::from(first), u32::from(last));
    std::iter::from_fn(move || {
        if next > last {
            return None;
        }
        // The largest block that starts here and does not go past the end.
        let aligned = next.trailing_zeros().min(16);
        let fits = (last - next + 1).ilog2();
        let free = aligned.min(fits);
        let block = (u16::try_from(next).ok()?, 16 - free);
        next += 1 << free;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covered(first: u16, last: u16) -> Vec<u16> {
        let mut ports: Vec<u16> = blocks(first, last)
            .flat_map(|(port, bits)| {
                port..=port + u16::try_from((1_u32 << (16 - bits)) - 1).expect("a block")
            })
            .collect();
        ports.sort_unstable();
        ports
    }

    #[test]
    fn a_range_is_covered_exactly_by_its_prefixes() {
        for (first, last) in [
            (1, 1),
            (1, 65535),
            (8000, 9000),
            (65535, 65535),
            (1024, 2047),
            (3, 4),
        ] {
            assert_eq!(covered(first, last), (first..=last).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_range_needs_at_most_30_prefixes() {
        assert_eq!(blocks(1, 65534).count(), 30);
    }

    #[test]
    fn a_port_that_is_named_twice_is_written_once() {
        let range = |(first, last)| PortRange::new(first, last).expect("a range");
        let many: Vec<_> = [(8, 9), (1, 3), (2, 5), (7, 7), (9, 9), (65535, 65535)]
            .map(range)
            .into();
        assert_eq!(merged(&many), [(1, 5), (7, 9), (65535, 65535)]);
        let all = vec![range((1, 65534)); 100_000];
        assert_eq!(Prefix::of_ranges(1, PortSet::OutExclude, &all).count(), 30);
    }
}
