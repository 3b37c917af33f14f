//! What is walked: the first packet of a connection, as a NAT hook sees it.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The protocols that Istio's rules look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP. MPTCP is TCP to the rules.
    Tcp,
    /// UDP.
    Udp,
}

/// Whether the packet leaves a socket of the pod, or comes in from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From a socket of the pod: the hook is `OUTPUT`.
    Out {
        /// The filesystem uid of the socket's creator.
        uid: u32,
        /// The filesystem gid of the socket's creator.
        gid: u32,
        /// Whether the route leaves by `lo`.
        loopback: bool,
    },
    /// From outside of the pod: the hook is `PREROUTING`.
    In,
}

/// The first packet of a connection. Its addresses are those on the wire: the source that the kernel chose or that the socket is
/// bound to, and a destination that is never unspecified, nor IPv4 in IPv6's clothes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Packet {
    /// Out of the pod or into it.
    pub way: Way,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The source address.
    pub source: IpAddr,
    /// The destination address and port.
    pub destination: SocketAddr,
}
