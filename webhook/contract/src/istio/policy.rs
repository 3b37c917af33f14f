//! Settings to policy: which of Istio's settings can be followed, and what they mean.

use ipnet::{IpNet, Ipv4Net};

use super::flags::Flag;
use super::lists;
use super::settings::Settings;
use crate::Leave;
use crate::policy::{Dns, GroupSet, Groups, Inbound, Include, MAX_GROUPS, MAX_IDS, Policy};

/// "All" in `-b`, `-i` and the list of owner groups.
const WILDCARD: &str = "*";

const MODE: &str = "REDIRECT";
const BINARY: &str = "legacy or nft";
const NOT_WILDCARD: &str = "a list of networks; * would exclude everything";
const LOOPBACK: &str = "an IPv4 loopback network like 127.0.0.1/32";
const AT_LEAST_ONE: &str = "a list with at least one id";
const SHORT_LOOPBACK: &str =
    "a network that is loopback or is not (a loopback address with a prefix wider than loopback)";

pub(super) fn from_settings(settings: &Settings) -> Result<Policy, Leave> {
    refuse_modes(settings)?;
    refuse_interfaces(settings)?;
    refuse_not_an_injectors(settings)?;
    let proxy_uids = proxy_uids(settings)?;
    Ok(Policy {
        outbound_port: lists::port(settings.of(Flag::EnvoyPort))?,
        inbound_port: lists::port(settings.of(Flag::InboundCapturePort))?,
        tunnel_port: lists::port(settings.of(Flag::InboundTunnelPort))?,
        proxy_gids: proxy_gids(settings, &proxy_uids)?,
        proxy_uids,
        inbound: inbound(settings)?,
        include_cidrs: include_cidrs(settings)?,
        exclude_cidrs: exclude_cidrs(settings)?,
        exclude_outbound_ports: lists::ports(settings.of(Flag::OutboundPortsExclude))?,
        include_outbound_ports: lists::ports(settings.of(Flag::OutboundPorts))?,
        groups: groups(settings)?,
        loopback: loopback(settings)?,
        dns: match (
            settings.is_set(Flag::RedirectDns),
            settings.is_set(Flag::CaptureAllDns),
        ) {
            (false, _) => Dns::Off,
            (true, false) => Dns::ToServers,
            (true, true) => Dns::All,
        },
        dual_stack: settings.is_set(Flag::DualStack),
        native_nftables: settings.is_set(Flag::NativeNftables),
        probe_port: lists::port(settings.of(Flag::ProbePort))?,
    })
}

fn refuse_modes(settings: &Settings) -> Result<(), Leave> {
    let mode = settings.of(Flag::InterceptionMode);
    let origin = mode.origin;
    match mode.value.as_str() {
        "REDIRECT" | "" => Ok(()),
        "TPROXY" => Err(Leave::Tproxy { origin }),
        "NONE" => Err(Leave::NoInterception { origin }),
        other => Err(lists::bad(mode, other, MODE)),
    }
}

fn refuse_interfaces(settings: &Settings) -> Result<(), Leave> {
    let excluded = settings.of(Flag::ExcludeInterfaces);
    if lists::items(&excluded.value).next().is_some() {
        return Err(Leave::ExcludedInterfaces {
            origin: excluded.origin,
            value: excluded.value.clone(),
        });
    }
    let rerouted = settings.of(Flag::KubeVirtInterfaces);
    if lists::items(&rerouted.value).next().is_some() {
        return Err(Leave::KubevirtInterfaces {
            origin: rerouted.origin,
            value: rerouted.value.clone(),
        });
    }
    Ok(())
}

fn refuse_not_an_injectors(settings: &Settings) -> Result<(), Leave> {
    let namespace = settings.of(Flag::NetworkNamespace);
    let mut refused = [Flag::DryRun, Flag::CleanupOnly, Flag::CniMode]
        .into_iter()
        .filter(|flag| settings.is_set(*flag))
        .map(|flag| settings.of(flag))
        .chain((!namespace.value.is_empty()).then_some(namespace))
        // Even `--help=false` is nothing that an injector writes.
        .chain(Some(settings.of(Flag::Help)).filter(|help| help.origin == Flag::Help.given()));
    if let Some(setting) = refused.next() {
        return Err(Leave::NotAnInjectors {
            origin: setting.origin,
            value: setting.value.clone(),
        });
    }
    let binary = settings.of(Flag::ForceIptablesBinary);
    match binary.value.as_str() {
        "" | "legacy" | "nft" => Ok(()),
        other => Err(lists::bad(binary, other, BINARY)),
    }
}

fn proxy_uids(settings: &Settings) -> Result<Vec<u32>, Leave> {
    let setting = settings.of(Flag::ProxyUid);
    let ids = lists::ids(setting, MAX_IDS)?;
    if ids.is_empty() {
        let origin = setting.origin;
        return Err(Leave::NoUid { origin });
    }
    Ok(ids)
}

fn proxy_gids(settings: &Settings, uids: &[u32]) -> Result<Vec<u32>, Leave> {
    let setting = settings.of(Flag::ProxyGid);
    if setting.value.is_empty() {
        return Ok(uids.to_vec());
    }
    let ids = lists::ids(setting, MAX_IDS)?;
    if ids.is_empty() {
        return Err(lists::bad(setting, &setting.value, AT_LEAST_ONE));
    }
    Ok(ids)
}

fn inbound(settings: &Settings) -> Result<Inbound, Leave> {
    let included = settings.of(Flag::InboundPorts);
    if included.value == WILDCARD {
        let excluded = settings.of(Flag::LocalExcludePorts);
        return Ok(Inbound::AllExcept(lists::ports(excluded)?));
    }
    Ok(Inbound::Only(lists::ports(included)?))
}

fn include_cidrs(settings: &Settings) -> Result<Include, Leave> {
    let setting = settings.of(Flag::ServiceCidr);
    if setting.value == WILDCARD {
        return Ok(Include::All);
    }
    let networks = lists::networks(setting)?;
    for (item, network) in lists::items(&setting.value).zip(&networks) {
        // Istio asks the address, not the network, whether loopback is included; clearing host bits would lose that.
        let address = lists::parse_network(item).map(|given| given.addr());
        let asked = address.is_some_and(|address| address.is_loopback());
        if asked != network.addr().is_loopback() {
            return Err(lists::bad(setting, item, SHORT_LOOPBACK));
        }
    }
    Ok(Include::Only(networks))
}

fn exclude_cidrs(settings: &Settings) -> Result<Vec<IpNet>, Leave> {
    let setting = settings.of(Flag::ServiceExcludeCidr);
    if setting.value == WILDCARD {
        return Err(lists::bad(setting, WILDCARD, NOT_WILDCARD));
    }
    lists::networks(setting)
}

fn groups(settings: &Settings) -> Result<Groups, Leave> {
    let included = settings.owner_groups();
    if included.value != WILDCARD {
        return Ok(Groups {
            include: GroupSet::Only(lists::ids(included, MAX_GROUPS)?),
            exclude: Vec::new(),
        });
    }
    Ok(Groups {
        include: GroupSet::All,
        exclude: lists::ids(settings.owner_groups_exclude(), MAX_GROUPS)?,
    })
}

fn loopback(settings: &Settings) -> Result<Ipv4Net, Leave> {
    let setting = settings.loopback_cidr();
    match lists::parse_network(&setting.value) {
        Some(IpNet::V4(network)) if network.addr().is_loopback() && network.prefix_len() >= 8 => {
            Ok(network.trunc())
        }
        _ => Err(lists::bad(setting, &setting.value, LOOPBACK)),
    }
}
