//! Rows in words: what each looks at, and which setting of Istio's says so.

use std::fmt::Display;

use sidestep_contract::{Dns, GroupSet, Inbound, Include, Policy, PortRange};
use sidestep_ebpf_common::{Row, Verdict};

/// A setting of Istio's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The flag or variable of istio-iptables.
    pub(super) flag: &'static str,
    /// The pod's annotation; of some there is none.
    pub(super) annotation: Option<&'static str>,
    /// The value of Istio's installation, or of its mesh configuration.
    pub(super) installed: Option<&'static str>,
}

const fn setting(
    flag: &'static str,
    annotation: Option<&'static str>,
    installed: Option<&'static str>,
) -> Setting {
    Setting {
        flag,
        annotation,
        installed,
    }
}

macro_rules! traffic {
    ($flag:literal, $annotation:literal, $value:literal) => {
        setting(
            $flag,
            Some(concat!("traffic.sidecar.istio.io/", $annotation)),
            Some(concat!("global.proxy.", $value)),
        )
    };
}

const EXCLUDE_OUT_PORTS: Setting = traffic!("-o", "excludeOutboundPorts", "excludeOutboundPorts");
const INCLUDE_OUT_PORTS: Setting = traffic!("-q", "includeOutboundPorts", "includeOutboundPorts");
const INCLUDE_RANGES: Setting = traffic!("-i", "includeOutboundIPRanges", "includeIPRanges");
const EXCLUDE_RANGES: Setting = traffic!("-x", "excludeOutboundIPRanges", "excludeIPRanges");
const INCLUDE_IN_PORTS: Setting = traffic!("-b", "includeInboundPorts", "includeInboundPorts");
const EXCLUDE_IN_PORTS: Setting = traffic!("-d", "excludeInboundPorts", "excludeInboundPorts");
const PROXY: Setting = setting("-u, -g", None, Some("global.proxy (its user and group)"));
const GROUPS: Setting = setting(
    "ISTIO_OUTBOUND_OWNER_GROUPS",
    Some("proxy.istio.io/config"),
    Some("meshConfig.defaultConfig.proxyMetadata"),
);
const DNS: Setting = setting(
    "--redirect-dns, ISTIO_META_DNS_CAPTURE",
    Some("proxy.istio.io/config"),
    Some("meshConfig.defaultConfig.proxyMetadata"),
);
const LOOPBACK: Setting = setting(
    "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
    Some("proxy.istio.io/config"),
    Some("meshConfig.defaultConfig.proxyMetadata"),
);
const DUAL_STACK: Setting = setting("--dual-stack", None, Some("ISTIO_DUAL_STACK of the mesh"));
const TUNNEL: Setting = setting("-e", None, None);

/// What a row looks at, with the policy's own values, and the setting that they come from. `None` where the policy has no such row.
pub(super) fn because(row: Row, policy: &Policy) -> Option<(String, Option<Setting>)> {
    let (text, setting) = inbound(row, policy).unwrap_or_else(|| outbound(row, policy));
    text.map(|text| (text, setting))
}

fn some(ports: &[PortRange], text: &str) -> Option<String> {
    (!ports.is_empty()).then(|| format!("the port is {text}: {}", list(ports)))
}

type Told = (Option<String>, Option<Setting>);

fn outbound(row: Row, policy: &Policy) -> Told {
    let told = |text: &str| Some(text.to_owned());
    match row {
        Row::OutFamily | Row::InFamily => (
            (!policy.native_nftables)
                .then(|| "it is IPv6, and the pod's IPv6 is not captured".to_owned()),
            Some(DUAL_STACK),
        ),
        Row::OutPortExcluded => (
            some(&policy.exclude_outbound_ports, "among the excluded ones"),
            Some(EXCLUDE_OUT_PORTS),
        ),
        Row::OutPassthrough => (
            told(
                "it goes to the pod itself, from 127.0.0.6 or ::6: the proxy reaches its application so",
            ),
            None,
        ),
        Row::OutSelfUid | Row::OutSelfGid => (
            told("the proxy calls its own pod, as a client of it"),
            Some(PROXY),
        ),
        Row::OutLocalUid => (
            told("it goes to the pod itself, and is not the proxy's"),
            None,
        ),
        Row::OutProxyUid => (
            Some(format!(
                "it is the proxy's (user {})",
                list(&policy.proxy_uids)
            )),
            Some(PROXY),
        ),
        Row::OutProxyGid => (
            Some(format!(
                "it is the proxy's (group {})",
                list(&policy.proxy_gids)
            )),
            Some(PROXY),
        ),
        Row::OutGroup => (groups(policy), Some(GROUPS)),
        Row::OutDns => (
            match policy.dns {
                Dns::Off => None,
                Dns::ToServers => told("it is DNS to a name server of the pod's resolv.conf"),
                Dns::All => told("it is DNS"),
            },
            Some(DNS),
        ),
        Row::OutLoopback => (
            Some(format!("the destination is in {} or ::1", policy.loopback)),
            Some(LOOPBACK),
        ),
        Row::OutAddrExcluded => (
            (!policy.exclude_cidrs.is_empty()).then(|| {
                format!(
                    "the destination is in an excluded range: {}",
                    list(&policy.exclude_cidrs)
                )
            }),
            Some(EXCLUDE_RANGES),
        ),
        Row::OutPortIncluded => (
            some(&policy.include_outbound_ports, "among the included ones"),
            Some(INCLUDE_OUT_PORTS),
        ),
        Row::OutAddrIncluded => (
            match &policy.include_cidrs {
                Include::All => told("every TCP destination is included"),
                Include::Only(ranges) if ranges.is_empty() => None,
                Include::Only(ranges) => Some(format!(
                    "the destination is in an included range: {}",
                    list(ranges)
                )),
            },
            Some(INCLUDE_RANGES),
        ),
        Row::OutRest => (told("no rule asks for it"), Some(INCLUDE_RANGES)),
        // What comes in, and what only a running pod shows.
        _ => (None, None),
    }
}

fn inbound(row: Row, policy: &Policy) -> Option<Told> {
    let (excluded, included): (Option<&[_]>, Option<&[_]>) = match &policy.inbound {
        Inbound::AllExcept(ports) => (Some(ports), None),
        Inbound::Only(ports) => (None, Some(ports)),
    };
    Some(match row {
        Row::InNone => (
            included
                .is_some_and(<[_]>::is_empty)
                .then(|| "no inbound port is included".to_owned()),
            Some(INCLUDE_IN_PORTS),
        ),
        Row::InTunnel => (
            Some(format!("the port is the tunnel's, {}", policy.tunnel_port)),
            Some(TUNNEL),
        ),
        Row::InExcluded => (
            excluded.and_then(|ports| some(ports, "among the excluded ones")),
            Some(EXCLUDE_IN_PORTS),
        ),
        Row::InAll => (
            excluded.map(|_| "every inbound port is included".to_owned()),
            Some(INCLUDE_IN_PORTS),
        ),
        Row::InIncluded => (
            included.and_then(|ports| some(ports, "among the included ones")),
            Some(INCLUDE_IN_PORTS),
        ),
        Row::InRest => (
            included.and_then(|ports| some(ports, "not among the included ones")),
            Some(INCLUDE_IN_PORTS),
        ),
        _ => return None,
    })
}

fn groups(policy: &Policy) -> Option<String> {
    match &policy.groups.include {
        GroupSet::Only(groups) => Some(format!(
            "its group is not among the captured ones: {}",
            list(groups)
        )),
        GroupSet::All if policy.groups.exclude.is_empty() => None,
        GroupSet::All => Some(format!(
            "its group is among those that are not captured: {}",
            list(&policy.groups.exclude)
        )),
    }
}

/// What follows from a row, in a word of the output.
pub(super) const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Inbound | Verdict::Outbound | Verdict::Dns => "redirect",
        Verdict::Refuse => "refuse",
    }
}

fn list(items: &[impl Display]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    if items.is_empty() {
        "none".to_owned()
    } else {
        items.join(", ")
    }
}
