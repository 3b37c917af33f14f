//! What the programs remember of sockets and connections.

use crate::Addr;

/// Most captured connections of a node that are remembered at once: some 64 MiB of the kernel's memory.
pub const MAX_FLOWS: usize = 524_288;

/// [`FLOW_SHARE`] as a number of entries.
pub const MOST_OF_ONE: usize = MAX_FLOWS / 8;

/// Most of them that may be one pod's, so that none takes what the others need: an eighth of [`MAX_FLOWS`]. That is more
/// than twice as many as the kernel's default range of source ports allows to one address, and it takes eight pods that leak
/// connections to harm a ninth. Signed as the count is, which may be below zero while it is corrected.
pub const FLOW_SHARE: i64 = MOST_OF_ONE.cast_signed() as i64;

/// Where a connection wanted to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Origin {
    /// Destination address.
    pub addr: Addr,
    /// Destination port, host byte order; 0 means there is no origin.
    pub port: u16,
    reserved: u16,
}

impl Origin {
    /// No origin: the connection went where it wanted to.
    pub const NONE: Self = Self::new(Addr::UNSPECIFIED, 0);

    /// An original destination.
    #[inline(always)]
    pub const fn new(addr: Addr, port: u16) -> Self {
        Self {
            addr,
            port,
            reserved: 0,
        }
    }

    /// Makes it [`Self::NONE`], with one store.
    #[inline(always)]
    pub const fn forget(&mut self) {
        self.port = 0;
    }

    /// Whether there is one.
    #[inline(always)]
    pub const fn is_some(&self) -> bool {
        self.port != 0
    }
}

/// [`SockState::flags`]: the creator's ids are known.
pub const HAS_CREATOR: u32 = 1 << 0;
/// [`SockState::flags`]: its source address was chosen by us once, and is given back before every further connect.
pub const BOUND_BY_US: u32 = 1 << 1;
/// [`SockState::flags`]: the proxy's end of a captured connection; its origin is where the client wanted to go.
pub const ACCEPTED: u32 = 1 << 2;

/// What is kept with a socket, in its `sk_storage`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SockState {
    /// Uid of the task that made the socket, where the kernel's own note of it cannot be read.
    pub uid: u32,
    /// Its gid.
    pub gid: u32,
    /// [`HAS_CREATOR`], [`BOUND_BY_US`], [`ACCEPTED`].
    pub flags: u32,
    /// Where the connection wanted to go, on both the client's socket and the one the proxy accepted.
    pub origin: Origin,
    /// The server that an unconnected UDP socket asked last.
    pub asked: Origin,
}

/// A captured connection as its client sees it: namespace and both ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// Network namespace cookie.
    pub cookie: u64,
    /// The client's address.
    pub client: Addr,
    /// The proxy's address.
    pub server: Addr,
    /// The client's port, host byte order.
    pub client_port: u16,
    /// The proxy's port, host byte order.
    pub server_port: u16,
    reserved: u32,
}

impl FlowKey {
    /// A key from both ends.
    #[inline(always)]
    pub const fn new(
        cookie: u64,
        client: Addr,
        client_port: u16,
        server: Addr,
        server_port: u16,
    ) -> Self {
        Self {
            cookie,
            client,
            server,
            client_port,
            server_port,
            reserved: 0,
        }
    }
}

/// One of the proxy's listening sockets on the inbound port, of either family: the kernel itself refuses to hand an
/// IPv4 connection to a socket that takes only IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ListenerKey {
    cookie: u64,
    slot: u32,
    reserved: u32,
}

impl ListenerKey {
    /// Slots are numbered from 0 to [`crate::LISTENER_SLOTS`].
    #[inline(always)]
    pub const fn new(cookie: u64, slot: u32) -> Self {
        Self {
            cookie,
            slot,
            reserved: 0,
        }
    }

    /// The namespace it listens in.
    pub const fn cookie(&self) -> u64 {
        self.cookie
    }
}

const _: () = assert!(size_of::<Origin>() == 20);
const _: () = assert!(size_of::<SockState>() == 52);
const _: () = assert!(size_of::<FlowKey>() == 48);
const _: () = assert!(size_of::<ListenerKey>() == 16);
