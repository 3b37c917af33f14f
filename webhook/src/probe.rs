//! Would the gate's own probe be captured? The same decision function answers that runs in the kernel.
//!
//! The gate (Istio's `validator.go`) listens on the two capture ports of 127.0.0.1 and `::1` and connects from there to its
//! probe port on 127.0.0.6 or `::6`, until the answer tells that port. Where the policy would let that connection
//! through, the gate would stay shut for ever.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sidestep_contract::{Dns, GroupSet as Groups, Inbound, Include, Policy, PortRange};
use sidestep_ebpf_common::{
    Addr, AddrSet, Attempt, GroupSet, Ids, Lookups, PodRecord, PortSet, Proto, Verdict,
    decide::is_local, outbound, pod,
};

/// What the gate dials.
const TARGETS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)),
    IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6)),
];

/// Other ports worth a try: Istio's own, which no application of an injected pod can use.
const OTHERS: std::ops::RangeInclusive<u16> = 15002..=15099;

/// Whether a gate that runs as `id` (user and group) with this policy sees its probe to `port` captured, whichever
/// family its pod has and whichever name servers its `resolv.conf` names: neither is known at admission.
pub(crate) fn opens(policy: &Policy, id: u32, port: u16) -> bool {
    let dns: &[bool] = match policy.dns {
        Dns::Off => &[false],
        Dns::ToServers => &[false, true],
        Dns::All => &[true],
    };
    dns.iter().all(|dns| {
        let Some(record) = record(policy, *dns) else {
            return false;
        };
        TARGETS
            .iter()
            .all(|target| is_captured(policy, &record, *target, id, port))
    })
}

/// A probe port with which such a gate would open.
pub(crate) fn other_port(policy: &Policy, id: u32) -> Option<u16> {
    OTHERS.into_iter().find(|port| opens(policy, id, *port))
}

fn is_captured(policy: &Policy, record: &PodRecord, target: IpAddr, id: u32, port: u16) -> bool {
    let sets = Sets(policy);
    let dst = addr(target);
    let attempt = Attempt {
        proto: Proto::Tcp,
        dst,
        port,
        bound: dst.loopback_of_family(),
        local: is_local(&sets, &dst),
        uid: id,
        gid: id,
    };
    match outbound(record, &sets, &attempt).verdict() {
        Verdict::Inbound | Verdict::Outbound => true,
        Verdict::Pass | Verdict::Dns | Verdict::Refuse => false,
    }
}

/// What the agent would write for this policy, as far as outbound connections are concerned.
fn record(policy: &Policy, dns: bool) -> Option<PodRecord> {
    let uids = Ids::new(&policy.proxy_uids)?;
    let gids = Ids::new(&policy.proxy_gids)?;
    let mut record = PodRecord::new(0, uids, gids);
    record.outbound_port = policy.outbound_port.get();
    record.inbound_port = policy.inbound_port.get();
    record.tunnel_port = policy.tunnel_port.get();
    record.loopback = u32::from(policy.loopback.network()).to_be();
    record.loopback_mask = u32::from(policy.loopback.netmask()).to_be();
    let (all, only) = match &policy.include_cidrs {
        Include::All => (true, false),
        Include::Only(cidrs) => (false, !cidrs.is_empty()),
    };
    let flags = [
        (pod::IPV6, true),
        (pod::INCLUDE_ALL, all),
        (pod::OUT_ADDRS_INCLUDED, only),
        (pod::INCLUDE_LOOPBACK, policy.includes_loopback()),
        (pod::OUT_ADDRS_EXCLUDED, !policy.exclude_cidrs.is_empty()),
        (
            pod::OUT_PORTS_EXCLUDED,
            !policy.exclude_outbound_ports.is_empty(),
        ),
        (
            pod::OUT_PORTS_INCLUDED,
            !policy.include_outbound_ports.is_empty(),
        ),
        (
            pod::GROUPS_LISTED,
            matches!(policy.groups.include, Groups::Only(_)),
        ),
        (pod::GROUPS_EXCLUDED, !policy.groups.exclude.is_empty()),
        (pod::DNS, dns),
        (pod::DNS_ALL, dns && policy.dns == Dns::All),
    ];
    let set = flags.iter().filter(|(_, on)| *on);
    record.flags = set.fold(0, |flags, (flag, _)| flags | flag);
    Some(record)
}

/// The policy's own lists. The pod's addresses are not known yet; only `::6`, which the agent adds, matters here.
struct Sets<'a>(&'a Policy);

impl Lookups for Sets<'_> {
    fn port(&self, set: PortSet, port: u16) -> bool {
        let ranges: &[PortRange] = match set {
            PortSet::OutExclude => &self.0.exclude_outbound_ports,
            PortSet::OutInclude => &self.0.include_outbound_ports,
            PortSet::Inbound => match &self.0.inbound {
                Inbound::AllExcept(ports) | Inbound::Only(ports) => ports,
            },
        };
        ranges.iter().any(|range| range.contains(port))
    }

    fn addr(&self, set: AddrSet, target: &Addr) -> bool {
        let cidrs = match (set, &self.0.include_cidrs) {
            (AddrSet::OutExclude, _) => &self.0.exclude_cidrs,
            (AddrSet::OutInclude, Include::Only(cidrs)) => cidrs,
            (AddrSet::Local, _) => return target.same(&addr(TARGETS[1])),
            (AddrSet::OutInclude, Include::All) | (AddrSet::DnsServers, _) => return false,
        };
        let target = ip(target);
        cidrs.iter().any(|cidr| cidr.contains(&target))
    }

    fn group(&self, set: GroupSet, gid: u32) -> bool {
        match (set, &self.0.groups.include) {
            (GroupSet::Include, Groups::All) => true,
            (GroupSet::Include, Groups::Only(groups)) => groups.contains(&gid),
            (GroupSet::Exclude, _) => self.0.groups.exclude.contains(&gid),
        }
    }
}

fn addr(ip: IpAddr) -> Addr {
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let octets = bits.octets();
    let word =
        |i: usize| u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]);
    Addr([word(0), word(4), word(8), word(12)])
}

fn ip(addr: &Addr) -> IpAddr {
    if addr.is_v4() {
        return Ipv4Addr::from(u32::from_be(addr.v4_word())).into();
    }
    let bits = addr.0.iter();
    let bits = bits.fold(0_u128, |bits, word| {
        bits << 32 | u128::from(u32::from_be(*word))
    });
    Ipv6Addr::from(bits).into()
}
