//! Would the gate's own probe be captured? The rules answer that the agent will compile for the pod.
//!
//! The gate (Istio's `validator.go`) listens on the two capture ports of 127.0.0.1 and `::1` and connects from there to its
//! probe port on 127.0.0.6 or `::6`, until the answer tells that port. Where the policy would let that connection
//! through, the gate would stay shut for ever.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sidestep_contract::{Dns, Policy};
use sidestep_ebpf_common::{Proto, Verdict};
use sidestep_rules::{CompileError, Facts, Outgoing, PASSTHROUGH6, Rules, compile};

/// What the gate dials, and from where.
const ATTEMPTS: [(IpAddr, IpAddr); 2] = [
    (
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6)),
    ),
    (IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V6(PASSTHROUGH6)),
];

/// Stands for an address of the pod, and for a name server: any that the gate does not dial (RFC 3849).
const SOME: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// Other ports worth a try: Istio's own, which no application of an injected pod can use.
const OTHERS: std::ops::RangeInclusive<u16> = 15002..=15099;

/// Whether a gate that runs as `id` (user and group) with this policy sees its probe to `port` captured, whichever
/// family its pod has and whichever name servers its `resolv.conf` names: neither is known at admission.
pub(crate) fn opens(policy: &Policy, id: u32, port: u16) -> bool {
    possible_rules(policy).is_some_and(|rules| are_captured(&rules, id, port))
}

/// Whether an agent would write rules for this policy.
pub(crate) fn fits(policy: &Policy) -> Result<(), CompileError> {
    compile(policy, &Facts::default(), 0, true).map(drop)
}

/// A probe port with which such a gate would open.
pub(crate) fn other_port(policy: &Policy, id: u32) -> Option<u16> {
    let rules = possible_rules(policy)?;
    OTHERS
        .into_iter()
        .find(|port| are_captured(&rules, id, *port))
}

/// What the agent would write for this policy, with IPv6 captured: without name servers, and with one where that matters.
fn possible_rules(policy: &Policy) -> Option<Vec<Rules>> {
    let name_servers: &[&[IpAddr]] = match policy.dns {
        Dns::ToServers => &[&[], &[SOME]],
        Dns::Off | Dns::All => &[&[]],
    };
    let rules = name_servers.iter().map(|name_servers| {
        let facts = Facts {
            addresses: vec![SOME, PASSTHROUGH6.into()],
            name_servers: name_servers.to_vec(),
            ..Facts::default()
        };
        compile(policy, &facts, 0, true).ok()
    });
    rules.collect()
}

fn are_captured(rules: &[Rules], id: u32, port: u16) -> bool {
    let is_captured = |rules: &Rules| {
        ATTEMPTS.iter().all(|(from, to)| {
            let row = rules.outbound(&Outgoing {
                proto: Proto::Tcp,
                to: SocketAddr::new(*to, port),
                bound: Some(*from),
                uid: id,
                gid: id,
            });
            match row.verdict() {
                Verdict::Inbound | Verdict::Outbound => true,
                Verdict::Pass | Verdict::Dns | Verdict::Refuse => false,
            }
        })
    };
    rules.iter().all(is_captured)
}
