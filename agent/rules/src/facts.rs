//! What a pod's policy alone does not tell: its namespace's addresses, and its name servers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is added to `lo` of a pod whose IPv6 is captured, as `istio-init` does: Envoy binds to it.
pub const PASSTHROUGH6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

/// A pod's namespace, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The namespace's cookie.
    pub cookie: u64,
    /// Every address of every interface, in the kernel's order (IPv4 first), which is the order Istio looks at.
    pub addresses: Vec<IpAddr>,
    /// Where connections that leave the pod come from.
    pub source4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub source6: Option<Ipv6Addr>,
    /// `nameserver` lines of the pod's resolv.conf.
    pub name_servers: Vec<IpAddr>,
}

impl Facts {
    /// Whether Istio would capture IPv6 here: the first address that is neither loopback nor link-local is IPv6, or the
    /// pod is dual-stack and has one (`istio-init`'s `getLocalIP`).
    pub fn captures_ipv6(&self, dual_stack: bool) -> bool {
        let mut global = self.addresses.iter().copied().filter(Self::is_global);
        if dual_stack {
            global.any(|address| address.is_ipv6())
        } else {
            global.next().is_some_and(|address| address.is_ipv6())
        }
    }

    /// Whether connections that leave the pod by IPv4 come from the only IPv4 address that it has beside loopback's.
    pub fn has_one_address4(&self) -> bool {
        let mut others = self.addresses.iter().filter_map(|address| match address {
            IpAddr::V4(address) if !address.is_loopback() => Some(*address),
            _ => None,
        });
        others.next().is_some_and(|one| self.source4 == Some(one)) && others.next().is_none()
    }

    /// Whether an address is neither loopback nor link-local, nor [`PASSTHROUGH6`].
    pub fn is_global(address: &IpAddr) -> bool {
        !address.is_loopback()
            && match address {
                IpAddr::V4(a) => !a.is_link_local(),
                IpAddr::V6(a) => !a.is_unicast_link_local() && *a != PASSTHROUGH6,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(addresses: &[&str]) -> Facts {
        let addresses = addresses.iter().map(|a| a.parse().expect("address"));
        Facts {
            addresses: addresses.collect(),
            ..Facts::default()
        }
    }

    #[test]
    fn one_address_is_the_source_and_no_other_is_there() {
        let with = |addresses: &[&str], source4: &str| Facts {
            source4: Some(source4.parse().expect("address")),
            ..facts(addresses)
        };
        assert!(with(&["127.0.0.1", "10.0.0.1", "fe80::1"], "10.0.0.1").has_one_address4());
        assert!(!with(&["10.0.0.1", "10.0.0.2"], "10.0.0.1").has_one_address4());
        assert!(!with(&["10.0.0.1"], "10.0.0.2").has_one_address4());
        assert!(!with(&["127.0.0.1"], "127.0.0.1").has_one_address4());
        assert!(!facts(&["10.0.0.1"]).has_one_address4());
    }

    #[test]
    fn ipv6_is_captured_where_istio_would() {
        let v4_first = facts(&["127.0.0.1", "10.0.0.1", "::1", "fe80::1", "fd00::1"]);
        assert!(!v4_first.captures_ipv6(false));
        assert!(v4_first.captures_ipv6(true));
        let v6_only = facts(&["127.0.0.1", "169.254.1.1", "::1", "fe80::1", "fd00::1"]);
        assert!(v6_only.captures_ipv6(false));
        let v4_only = facts(&["127.0.0.1", "10.0.0.1", "::1", "::6", "fe80::1"]);
        assert!(!v4_only.captures_ipv6(false));
        assert!(!v4_only.captures_ipv6(true));
    }
}
