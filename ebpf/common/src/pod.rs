//! What the programs know of one pod.

use crate::Addr;

/// At most this many proxy uids, and as many gids: the programs walk them in order.
pub const MAX_IDS: usize = 8 + crate::NEXT as usize;

/// Capture IPv6 too.
pub const IPV6: u32 = 1 << 0;
/// `-b *`: [`crate::PortSet::Inbound`] holds the excluded ports, else the included ones.
pub const INBOUND_ALL: u32 = 1 << 1;
/// `-b` names at least one port.
pub const INBOUND_ANY: u32 = 1 << 2;
/// `-i *`.
pub const INCLUDE_ALL: u32 = 1 << 3;
/// `-i` contains a loopback prefix.
pub const INCLUDE_LOOPBACK: u32 = 1 << 4;
/// DNS is captured (`--redirect-dns`, and there is a server to capture or `--capture-all-dns`).
pub const DNS: u32 = 1 << 5;
/// DNS to any server is captured.
pub const DNS_ALL: u32 = 1 << 6;
/// Only the groups of [`crate::GroupSet::Include`] are captured.
pub const GROUPS_LISTED: u32 = 1 << 7;
/// [`crate::GroupSet::Exclude`] is not empty.
pub const GROUPS_EXCLUDED: u32 = 1 << 8;
/// [`crate::PortSet::OutExclude`] is not empty.
pub const OUT_PORTS_EXCLUDED: u32 = 1 << 9;
/// [`crate::PortSet::OutInclude`] is not empty.
pub const OUT_PORTS_INCLUDED: u32 = 1 << 10;
/// [`crate::AddrSet::OutExclude`] is not empty.
pub const OUT_ADDRS_EXCLUDED: u32 = 1 << 11;
/// [`crate::AddrSet::OutInclude`] is not empty.
pub const OUT_ADDRS_INCLUDED: u32 = 1 << 12;
/// Raw TCP sockets are refused to all but the proxy.
pub const STRICT: u32 = 1 << 13;
/// [`PodRecord::source4`] is the only IPv4 address of [`crate::AddrSet::Local`] that is no loopback address: nobody has to look
/// there.
pub const ONE_ADDRESS4: u32 = 1 << 14;

/// IPv6 is captured by those rules alone that name no address family: with `--native-nftables`, whose table is both families',
/// in a pod whose IPv6 Istio takes for not enabled. Rows 2, 3, 6a and 9 name one.
pub const IPV6_UNNAMED: u32 = 1 << 15;

/// The proxy's user or group ids, in order. Unused places repeat the last id, which changes no decision and spares the
/// programs a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Ids([u32; MAX_IDS]);

impl Ids {
    /// `None` where there is no id, or more than [`MAX_IDS`].
    pub fn new(ids: &[u32]) -> Option<Self> {
        let last = *ids.last()?;
        let mut all = [last; MAX_IDS];
        all.get_mut(..ids.len())?.copy_from_slice(ids);
        Some(Self(all))
    }

    /// The id that Istio's rules test first.
    #[inline(always)]
    pub const fn first(&self) -> u32 {
        self.0[0]
    }

    /// Whether `id` is one of them.
    #[inline(always)]
    pub const fn hold(&self, id: u32) -> bool {
        let mut i = 0;
        while i < MAX_IDS {
            if self.0[i] == id {
                return true;
            }
            i += 1;
        }
        false
    }
}

/// The commit record of an armed pod, under its network namespace's cookie. It is written last and replaced whole: a
/// program that starts after that sees the new policy. (One that runs meanwhile may find the old element used again, which
/// the kernel allows itself for memory of hash maps.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PodRecord {
    /// Under which the pod's sets stand in the rule maps.
    pub rules: u32,
    /// The constants of this module.
    pub flags: u32,
    /// `-p`.
    pub outbound_port: u16,
    /// `-z`.
    pub inbound_port: u16,
    /// `-e`.
    pub tunnel_port: u16,
    reserved: u16,
    /// `-u`.
    pub uids: Ids,
    /// `-g`.
    pub gids: Ids,
    /// The source address that routing gives to connections that leave the pod, as IPv4-mapped; or unspecified.
    pub source4: Addr,
    /// The same for IPv6.
    pub source6: Addr,
    /// `ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR`, big-endian address.
    pub loopback: u32,
    /// Its mask, big-endian.
    pub loopback_mask: u32,
}

const _: () = assert!(size_of::<PodRecord>() == 8 + 8 + 2 * 4 * MAX_IDS + 32 + 8);

impl PodRecord {
    /// A record that captures nothing until its fields are set.
    pub const fn new(rules: u32, uids: Ids, gids: Ids) -> Self {
        Self {
            rules,
            flags: 0,
            outbound_port: 0,
            inbound_port: 0,
            tunnel_port: 0,
            reserved: 0,
            uids,
            gids,
            source4: Addr::UNSPECIFIED,
            source6: Addr::UNSPECIFIED,
            loopback: 0,
            loopback_mask: 0,
        }
    }

    /// Whether a flag is set.
    #[inline(always)]
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Whether connections of this family are looked at.
    #[inline(always)]
    pub const fn captures(&self, addr: &Addr) -> bool {
        addr.is_v4() || self.has(IPV6)
    }

    /// Whether these ids are the proxy's.
    #[inline(always)]
    pub fn is_proxy(&self, uid: u32, gid: u32) -> bool {
        self.uids.hold(uid) || self.gids.hold(gid)
    }

    /// Whether `addr` is in the loopback CIDR (`L` in the specification).
    #[inline(always)]
    pub const fn in_loopback(&self, addr: &Addr) -> bool {
        if addr.is_v4() {
            addr.v4_word() & self.loopback_mask == self.loopback
        } else {
            addr.same(&Addr::LOOPBACK6)
        }
    }

    /// The address that a connection to `dst` would leave from: `dst` itself where it is local.
    #[inline(always)]
    pub const fn source_for(&self, dst: &Addr, local: bool) -> Addr {
        if dst.is_loopback() {
            dst.loopback_of_family()
        } else if local {
            *dst
        } else if dst.is_v4() {
            self.source4
        } else {
            self.source6
        }
    }
}

/// What is known of an armed pod's proxy. The agent makes the entry when it arms the pod; from then on the programs
/// write its fields, each for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProxyState {
    /// Not 0 once the proxy has listened on its inbound port: interception is on, and stays on.
    pub active: u32,
    /// Not 0 while the proxy listens on every address on its outbound port (Envoy does; Istio's validation listens on
    /// 127.0.0.1 only): connections may then be spread over loopback addresses.
    pub spread: u32,
}

const _: () = assert!(size_of::<ProxyState>() == 8);
