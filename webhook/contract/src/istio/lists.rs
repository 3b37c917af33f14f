//! Comma lists of ports, ids and networks.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

use ipnet::IpNet;

use super::settings::Setting;
use super::values::decimal;
use crate::{Leave, PortRange};

const PORT: &str = "a port from 1 to 65535";
const PORT_OR_RANGE: &str = "a port from 1 to 65535 or a range like 8000:9000";
const ID: &str = "a user or group id";
const NETWORK: &str = "a network like 10.0.0.0/8 or fd00::/8";

/// Istio splits on commas and drops empty items.
pub(super) fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|item| !item.is_empty())
}

/// One port.
pub(super) fn port(setting: &Setting) -> Result<NonZeroU16, Leave> {
    parse_port(&setting.value).ok_or_else(|| bad(setting, &setting.value, PORT))
}

/// Ports and ranges. Blanks around them separate words in what iptables-restore and nft read, and so mean nothing.
pub(super) fn ports(setting: &Setting) -> Result<Vec<PortRange>, Leave> {
    let range = |item: &str| {
        let item = item.trim_matches([' ', '\t']);
        if let Some(range) = parse_range(item) {
            return Ok(range);
        }
        if item.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(Leave::ServiceName {
                origin: setting.origin,
                value: item.to_owned(),
            });
        }
        Err(bad(setting, item, PORT_OR_RANGE))
    };
    items(&setting.value).map(range).collect()
}

/// User or group ids, at most `max`.
pub(super) fn ids(setting: &Setting, max: usize) -> Result<Vec<u32>, Leave> {
    let id = |item: &str| {
        // The highest number means "no id" to the kernel, and iptables refuses it.
        let id = decimal(item).and_then(|id| u32::try_from(id).ok());
        match id {
            Some(id) if id != u32::MAX => Ok(id),
            None if item.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') => {
                Err(Leave::IdName {
                    origin: setting.origin,
                    value: item.to_owned(),
                })
            }
            _ => Err(bad(setting, item, ID)),
        }
    };
    let ids: Vec<u32> = items(&setting.value).map(id).collect::<Result<_, _>>()?;
    if ids.len() > max {
        return Err(Leave::TooManyIds {
            origin: setting.origin,
            count: ids.len(),
            max,
        });
    }
    Ok(ids)
}

/// Networks, with host bits cleared.
pub(super) fn networks(setting: &Setting) -> Result<Vec<IpNet>, Leave> {
    let network = |item| match parse_network(item) {
        Some(network) => Ok(network.trunc()),
        None => Err(bad(setting, item, NETWORK)),
    };
    items(&setting.value).map(network).collect()
}

/// A network with its host bits, as Go's `netip.ParsePrefix` takes it; none that are IPv4 in IPv6 clothes, which
/// nothing on the wire ever matches.
pub(super) fn parse_network(item: &str) -> Option<IpNet> {
    let (address, bits) = item.rsplit_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let mapped = matches!(address, IpAddr::V6(v6) if is_mapped(v6));
    let bits = u8::try_from(decimal(bits)?).ok()?;
    if mapped {
        return None;
    }
    IpNet::new(address, bits).ok()
}

pub(super) fn bad(setting: &Setting, value: &str, expected: &'static str) -> Leave {
    Leave::BadValue {
        origin: setting.origin,
        value: value.to_owned(),
        expected,
    }
}

fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

fn parse_port(text: &str) -> Option<NonZeroU16> {
    NonZeroU16::new(u16::try_from(decimal(text)?).ok()?)
}

/// A port, `first:last`, or iptables' open ranges `first:` and `:last`.
fn parse_range(text: &str) -> Option<PortRange> {
    let Some((first, last)) = text.split_once(':') else {
        return parse_port(text).map(PortRange::single);
    };
    let (first, last) = match (first, last) {
        ("", "") => return None,
        ("", last) => (NonZeroU16::MIN, parse_port(last)?),
        (first, "") => (parse_port(first)?, NonZeroU16::MAX),
        (first, last) => (parse_port(first)?, parse_port(last)?),
    };
    PortRange::new(first.get(), last.get()).ok()
}
