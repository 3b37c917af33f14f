//! What is said between a test and its actors: one JSON value per line, a request and its answer in turn.

use std::{collections::BTreeMap, fmt, io, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// The address family a socket is made with, which need not be that of the destination: see IPv4-mapped addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// `AF_INET`
    V4,
    /// `AF_INET6`
    V6,
}

/// The kind of socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// `SOCK_STREAM`
    Tcp,
    /// `SOCK_STREAM`, `IPPROTO_MPTCP`
    Mptcp,
    /// `SOCK_DGRAM`
    Udp,
    /// `SOCK_RAW`, `IPPROTO_TCP`: hand-made TCP segments.
    RawTcp,
    /// `SOCK_RAW`, `IPPROTO_RAW`: hand-made packets.
    RawIp,
    /// `SOCK_RAW`, `IPPROTO_ICMP`: what `ping` uses.
    RawIcmp,
}

/// The number by which an actor knows one of its sockets.
pub type SocketId = u64;

/// Something an actor does.
#[expect(missing_docs, reason = "each variant is the system call of its name")]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    Socket {
        family: Family,
        kind: Kind,
    },
    Bind {
        socket: SocketId,
        address: SocketAddr,
    },
    BindToDevice {
        socket: SocketId,
        device: String,
    },
    SetOption {
        socket: SocketId,
        level: i32,
        name: i32,
        value: i32,
    },
    GetOption {
        socket: SocketId,
        level: i32,
        name: i32,
        size: usize,
    },
    Connect {
        socket: SocketId,
        address: SocketAddr,
        timeout_ms: u32,
    },
    /// connect with `AF_UNSPEC`
    Disconnect {
        socket: SocketId,
    },
    Listen {
        socket: SocketId,
        backlog: i32,
    },
    Accept {
        socket: SocketId,
        timeout_ms: u32,
    },
    PeerName {
        socket: SocketId,
    },
    SocketName {
        socket: SocketId,
    },
    /// `SO_ORIGINAL_DST` at `SOL_IP` or `SOL_IPV6`
    OriginalDestination {
        socket: SocketId,
        family: Family,
    },
    Send {
        socket: SocketId,
        bytes: Vec<u8>,
        to: Option<SocketAddr>,
    },
    Receive {
        socket: SocketId,
        size: usize,
        timeout_ms: u32,
    },
    Close {
        socket: SocketId,
    },
    /// Under which number the process itself knows it.
    Descriptor {
        socket: SocketId,
    },
    /// close with `SO_LINGER` 0
    Reset {
        socket: SocketId,
    },
    /// Answers every connection or datagram with a [`Report`] on a line, then echoes, until the listener is closed.
    Serve {
        socket: SocketId,
        name: String,
    },
    /// Makes traffic.
    Traffic(Traffic),
    /// Takes other ids; sockets stay who made them.
    BecomeUser {
        identity: super::Identity,
    },
}

/// Many connections to servers of [`Request::Serve`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Traffic {
    /// Opens, checks and closes `count` connections one after the other, to each address in turn.
    Series {
        /// To whom.
        addresses: Vec<SocketAddr>,
        /// How many.
        count: u32,
    },
    /// Lets workers send requests until told to stop.
    Start {
        /// To whom.
        address: SocketAddr,
        /// How many workers make a connection per request.
        fresh: u32,
        /// How many keep one connection.
        kept: u32,
    },
    /// Stops them.
    Stop,
}

/// How it went.
#[expect(missing_docs, reason = "each variant is the result of a request")]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    Done,
    Socket(SocketId),
    Accepted(SocketId, SocketAddr),
    Address(SocketAddr),
    Bytes(Vec<u8>, Option<SocketAddr>),
    Descriptor(i32),
    Load(Load),
    Failed(Errno),
}

/// What a server of [`Request::Serve`] saw of a connection or of a datagram.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The server's name.
    pub name: String,
    /// getpeername: where the connection comes from.
    pub peer: SocketAddr,
    /// getsockname: where it arrived.
    pub local: SocketAddr,
    /// `SO_ORIGINAL_DST`, asked as Envoy does: by the family of the address, mapped ones as IPv4.
    pub original: Result<SocketAddr, Errno>,
}

/// What came of many connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Requests that were answered, by the name of the server.
    pub answered: BTreeMap<String, u64>,
    /// Connections and requests that failed, by what failed.
    pub failed: BTreeMap<String, u64>,
}

/// An error number of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errno(pub i32);

impl Errno {
    /// The connection was answered with a reset.
    pub const REFUSED: Self = Self(libc::ECONNREFUSED);
    /// Nothing happened until the deadline.
    pub const TIMED_OUT: Self = Self(libc::ETIMEDOUT);
    /// Not permitted.
    pub const NOT_PERMITTED: Self = Self(libc::EPERM);

    /// The error of the last system call of this thread.
    pub fn last() -> Self {
        Self(io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", io::Error::from_raw_os_error(self.0))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Errno {}
