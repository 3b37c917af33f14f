//! Keys of the rule maps. Every set of every pod lives in one of three maps; `rules` tells pods, and versions of one
//! pod's policy, apart.

use crate::Addr;

/// Sets of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PortSet {
    /// `-o`.
    OutExclude = 1,
    /// `-q`.
    OutInclude = 2,
    /// `-d`, or the list of `-b`: which of the two is [`crate::pod::INBOUND_ALL`].
    Inbound = 3,
}

/// Sets of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AddrSet {
    /// `-x`.
    OutExclude = 1,
    /// `-i`.
    OutInclude = 2,
    /// The pod's own addresses.
    Local = 3,
    /// Name servers in the pod's resolv.conf.
    DnsServers = 4,
}

/// Sets of group ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum GroupSet {
    /// `ISTIO_OUTBOUND_OWNER_GROUPS`.
    Include = 1,
    /// `ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE`.
    Exclude = 2,
}

/// Key of the ports trie: a range is a handful of prefixes of the port's 16 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct PortKey {
    rules: u32,
    set: u16,
    port: u16,
}

impl PortKey {
    /// Prefix length, in bits, of one port.
    pub const FULL: u32 = 64;

    /// A key for `port` (host byte order).
    #[inline(always)]
    pub const fn new(rules: u32, set: PortSet, port: u16) -> Self {
        Self {
            rules,
            set: set as u16,
            port: port.to_be(),
        }
    }

    /// The pod and policy version it belongs to.
    pub const fn rules(&self) -> u32 {
        self.rules
    }

    /// Whether the first `length` bits of both are the same: how a trie compares them.
    pub fn begins_as(&self, other: &Self, length: u32) -> bool {
        let bits = |key: &Self| {
            let set = (u32::from(key.set.to_be()) << 16) | u32::from(key.port.to_be());
            [key.rules.to_be(), set]
        };
        same_bits(bits(self), bits(other), length)
    }
}

/// Key of the addresses trie. IPv4 is stored in its mapped form under a family of its own, so that `::/0` holds no
/// IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct AddrKey {
    rules: u32,
    set: u16,
    family: u16,
    addr: [u32; 4],
}

impl AddrKey {
    /// Bits before the address.
    pub const HEAD: u32 = 64;
    /// Prefix length, in bits, of one address.
    pub const FULL: u32 = Self::HEAD + 128;
    /// Bits of an IPv4-mapped address before the IPv4 address.
    pub const MAPPED: u32 = 96;

    /// A key for `addr`.
    #[inline(always)]
    pub const fn new(rules: u32, set: AddrSet, addr: &Addr) -> Self {
        Self {
            rules,
            set: set as u16,
            family: if addr.is_v4() { 4 } else { 6 },
            addr: addr.0,
        }
    }

    /// The pod and policy version it belongs to.
    pub const fn rules(&self) -> u32 {
        self.rules
    }

    /// Whether the first `length` bits of both are the same: how a trie compares them.
    pub fn begins_as(&self, other: &Self, length: u32) -> bool {
        let bits = |key: &Self| {
            let [a, b, c, d] = key.addr.map(u32::to_be);
            let set = (u32::from(key.set.to_be()) << 16) | u32::from(key.family.to_be());
            [key.rules.to_be(), set, a, b, c, d]
        };
        same_bits(bits(self), bits(other), length)
    }
}

/// Whether the first `length` bits are the same, counted from each word's highest.
fn same_bits<const N: usize>(one: [u32; N], other: [u32; N], length: u32) -> bool {
    let mut left = length;
    one.iter().zip(&other).all(|(one, other)| {
        let past = 32_u32.saturating_sub(left);
        left = left.saturating_sub(32);
        (one ^ other).checked_shr(past).unwrap_or(0) == 0
    })
}

/// Key of the groups map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct GroupKey {
    rules: u32,
    set: u32,
    gid: u32,
}

impl GroupKey {
    /// A key for `gid`.
    #[inline(always)]
    pub const fn new(rules: u32, set: GroupSet, gid: u32) -> Self {
        Self {
            rules,
            set: set as u32,
            gid,
        }
    }

    /// The pod and policy version it belongs to.
    pub const fn rules(&self) -> u32 {
        self.rules
    }
}

const _: () = assert!(size_of::<PortKey>() == 8);
const _: () = assert!(size_of::<AddrKey>() == 24);
const _: () = assert!(size_of::<GroupKey>() == 12);
