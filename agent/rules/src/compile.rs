//! A policy and a namespace's facts, compiled into what the programs look up. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use sidestep_contract::{Dns, GroupSet as Groups, Inbound, Include, Policy, PortRange};
use sidestep_ebpf_common::{
    Addr, AddrKey, AddrSet, GroupKey, GroupSet, Ids, PodRecord, PortKey, PortSet, pod,
};
use thiserror::Error;

use crate::{Allowed, Facts, Prefix};

/// Most entries of one pod in the map of ports, and of its networks in that of addresses. In a map of 1,048,576 there is room for
/// 256 such pods: one takes nothing from as many others.
const SHARE: usize = 1_048_576 / 256 - ADDRESSES;
/// Most addresses and name servers.
pub const ADDRESSES: usize = 256;
/// Most owner groups, of 65,536.
const GROUPS: usize = 65_536 / 256;

/// A policy, or a namespace, for which no rules are written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompileError {
    /// A number of ids that the programs cannot walk. The contract never lets one through.
    #[error("a policy with {uids} proxy user ids and {gids} group ids")]
    Ids {
        /// Of users.
        uids: usize,
        /// Of groups.
        gids: usize,
    },
    /// More than one pod's share of a map.
    #[error("{what} take {count} entries, and a pod may have {most}")]
    Share {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        most: usize,
    },
}

/// Everything that arming one pod writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The commit record.
    pub record: PodRecord,
    /// Port sets.
    pub ports: Vec<Prefix<PortKey>>,
    /// Address sets.
    pub addrs: Vec<Prefix<AddrKey>>,
    /// Group sets.
    pub groups: Vec<GroupKey>,
    /// The addresses by which others on the node may know it: no other pod's connections are taken for its own.
    pub addresses: Vec<IpAddr>,
    /// How far its bytes may go past TCP.
    pub allowed: Allowed,
    /// The pod's Kubernetes namespace; empty where it has none.
    pub namespace: String,
}

/// Compiles a policy for one namespace. `id` tells its sets from those of every other pod and policy version; `strict`
/// refuses raw TCP sockets.
pub fn compile(
    policy: &Policy,
    facts: &Facts,
    id: u32,
    strict: bool,
) -> Result<Rules, CompileError> {
    let bad = || CompileError::Ids {
        uids: policy.proxy_uids.len(),
        gids: policy.proxy_gids.len(),
    };
    let uids = Ids::new(&policy.proxy_uids).ok_or_else(bad)?;
    let gids = Ids::new(&policy.proxy_gids).ok_or_else(bad)?;
    let mut record = PodRecord::new(id, uids, gids);
    record.outbound_port = policy.outbound_port.get();
    record.inbound_port = policy.inbound_port.get();
    record.tunnel_port = policy.tunnel_port.get();
    record.source4 = facts.source4.map_or(Addr::UNSPECIFIED, |a| addr(a.into()));
    record.source6 = facts.source6.map_or(Addr::UNSPECIFIED, |a| addr(a.into()));
    record.loopback = word(policy.loopback.network().octets());
    record.loopback_mask = word(policy.loopback.netmask().octets());

    let mut rules = Rules {
        record,
        ports: Vec::new(),
        addrs: Vec::new(),
        groups: Vec::new(),
        addresses: facts.addresses.clone(),
        allowed: Allowed::default(),
        namespace: String::new(),
    };
    let ipv6 = facts.captures_ipv6(policy.dual_stack);
    rules.flag(pod::IPV6, ipv6 || policy.native_nftables);
    rules.flag(pod::IPV6_UNNAMED, !ipv6 && policy.native_nftables);
    rules.flag(pod::STRICT, strict);
    rules.flag(pod::ONE_ADDRESS4, facts.has_one_address4());
    rules.add_inbound(&policy.inbound);
    rules.add_outbound(policy);
    rules.add_groups(policy);
    share("ports of the policy", rules.ports.len(), SHARE)?;
    share("networks of the policy", rules.addrs.len(), SHARE)?;
    share("owner groups", rules.groups.len(), GROUPS)?;
    let addresses = facts.addresses.len() + facts.name_servers.len();
    share("addresses and name servers", addresses, ADDRESSES)?;
    rules.add_dns(policy.dns, &facts.name_servers);
    for address in &facts.addresses {
        rules.add_addr(AddrSet::Local, &IpNet::from(*address));
    }
    Ok(rules)
}

fn share(what: &'static str, count: usize, most: usize) -> Result<(), CompileError> {
    if count > most {
        Err(CompileError::Share { what, count, most })
    } else {
        Ok(())
    }
}

impl Rules {
    /// The same, allowing this much of the shortcut.
    #[must_use]
    pub const fn allowing(mut self, allowed: Allowed) -> Self {
        self.allowed = allowed;
        self
    }

    /// The same, of a pod of this Kubernetes namespace.
    #[must_use]
    pub fn of(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self
    }

    /// The same, known to others by none but the addresses it was given, where somebody tells those. A pod may give itself
    /// any address, also another's.
    #[must_use]
    pub fn known_by(mut self, given: Option<&[IpAddr]>) -> Self {
        if let Some(given) = given {
            self.addresses.retain(|address| given.contains(address));
        }
        self
    }

    fn flag(&mut self, flag: u32, on: bool) {
        if on {
            self.record.flags |= flag;
        }
    }

    fn add_inbound(&mut self, inbound: &Inbound) {
        let (all, ports) = match inbound {
            Inbound::AllExcept(ports) => (true, ports),
            Inbound::Only(ports) => (false, ports),
        };
        self.flag(pod::INBOUND_ALL, all);
        self.flag(pod::INBOUND_ANY, all || !ports.is_empty());
        self.add_ports(PortSet::Inbound, ports);
    }

    fn add_outbound(&mut self, policy: &Policy) {
        self.add_ports(PortSet::OutExclude, &policy.exclude_outbound_ports);
        self.add_ports(PortSet::OutInclude, &policy.include_outbound_ports);
        self.flag(
            pod::OUT_PORTS_EXCLUDED,
            !policy.exclude_outbound_ports.is_empty(),
        );
        self.flag(
            pod::OUT_PORTS_INCLUDED,
            !policy.include_outbound_ports.is_empty(),
        );
        for net in &policy.exclude_cidrs {
            self.flag(pod::OUT_ADDRS_EXCLUDED, true);
            self.add_addr(AddrSet::OutExclude, net);
        }
        self.flag(pod::INCLUDE_LOOPBACK, policy.includes_loopback());
        match &policy.include_cidrs {
            Include::All => self.flag(pod::INCLUDE_ALL, true),
            Include::Only(nets) => {
                for net in nets {
                    self.flag(pod::OUT_ADDRS_INCLUDED, true);
                    self.add_addr(AddrSet::OutInclude, net);
                }
            }
        }
    }

    fn add_ports(&mut self, set: PortSet, ranges: &[PortRange]) {
        let prefixes = Prefix::of_ranges(self.record.rules, set, ranges);
        self.ports.extend(prefixes);
    }

    fn add_addr(&mut self, set: AddrSet, net: &IpNet) {
        let names_ipv6 = set != AddrSet::Local && matches!(net, IpNet::V6(_));
        if names_ipv6 && self.record.has(pod::IPV6_UNNAMED) {
            return; // Istio writes no rule for it
        }
        let prefix = Prefix::of_net(self.record.rules, set, net);
        self.addrs.push(prefix);
    }

    fn add_groups(&mut self, policy: &Policy) {
        let id = self.record.rules;
        if let Groups::Only(gids) = &policy.groups.include {
            self.flag(pod::GROUPS_LISTED, true);
            let keys = gids
                .iter()
                .map(|gid| GroupKey::new(id, GroupSet::Include, *gid));
            self.groups.extend(keys);
        }
        self.flag(pod::GROUPS_EXCLUDED, !policy.groups.exclude.is_empty());
        let excluded = policy.groups.exclude.iter();
        self.groups
            .extend(excluded.map(|gid| GroupKey::new(id, GroupSet::Exclude, *gid)));
    }

    /// Where only resolv.conf's servers are captured and there are none, Istio writes no DNS rule at all.
    fn add_dns(&mut self, dns: Dns, servers: &[IpAddr]) {
        self.flag(pod::DNS_ALL, dns == Dns::All);
        self.flag(
            pod::DNS,
            dns == Dns::All || dns == Dns::ToServers && !servers.is_empty(),
        );
        for server in servers {
            self.add_addr(AddrSet::DnsServers, &IpNet::from(*server));
        }
    }
}

/// An address in the form that people know.
pub fn ip(addr: Addr) -> IpAddr {
    let mut octets = [0; 16];
    for (place, word) in octets.chunks_exact_mut(4).zip(addr.0) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    IpAddr::from(octets).to_canonical()
}

/// The kernel's form of an address.
pub fn addr(ip: IpAddr) -> Addr {
    match ip {
        IpAddr::V4(ip) => Addr::v4(word(ip.octets())),
        IpAddr::V6(ip) => {
            let words = ip.octets();
            let word = |i: usize| word([words[i], words[i + 1], words[i + 2], words[i + 3]]);
            Addr([word(0), word(4), word(8), word(12)])
        }
    }
}

/// Four bytes as they lie in memory.
fn word(bytes: [u8; 4]) -> u32 {
    u32::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_known_by_the_addresses_that_it_has_and_was_given() {
        let init = "istio-iptables -p 15001 -z 15006 -u 1337 -m REDIRECT -i * -b *";
        let args: Vec<&str> = init.split(' ').collect();
        let init = serde_json::json!({"name": "istio-init", "args": args});
        let init = serde_json::from_value(init).expect("a container");
        let init = sidestep_contract::IstioInit::read(0, &init);
        let policy = init.policy.expect("a policy");
        let all = |list: &[&str]| -> Vec<IpAddr> {
            let address = |a: &&str| a.parse().expect("an address");
            list.iter().map(address).collect()
        };
        let facts = Facts {
            addresses: all(&["127.0.0.1", "10.0.0.7", "10.96.0.1"]),
            ..Facts::default()
        };
        let known = |given: Option<&[IpAddr]>| {
            let rules = compile(&policy, &facts, 1, true).expect("rules");
            rules.known_by(given).addresses
        };
        // The second is a service's, which it gave itself; the third it has no longer.
        let given = all(&["10.0.0.7", "10.0.0.8"]);
        assert_eq!(known(Some(&given)), all(&["10.0.0.7"]));
        assert_eq!(known(Some(&[])), all(&[]));
        assert_eq!(known(None), facts.addresses);
    }
}
