//! A pod's connections.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The connections of one pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flows {
    /// Each, those of the application first.
    pub flows: Vec<Flow>,
    /// Whether the pod has more of them than are told.
    pub more: bool,
}

/// One connection, as the end in the pod has it. Where both ends are in the pod, the application's is told; what the proxy has with
/// itself is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// Whose end it is.
    pub of: Side,
    /// Who asked for it.
    pub direction: Direction,
    /// How far it is.
    pub stage: Stage,
    /// The pod's end.
    pub local: SocketAddr,
    /// The other end, as the kernel has it.
    pub remote: SocketAddr,
    /// Where it wanted to go, if it was sent to the proxy instead.
    pub captured_from: Option<SocketAddr>,
    /// The row that decided it, where the policy of today explains what is.
    pub row: Option<String>,
    /// How its bytes go.
    pub way: Way,
    /// Why they go by TCP, where they do.
    pub because: Option<Because>,
    /// Bytes that left by this end.
    pub sent: Bytes,
    /// Bytes that came to it.
    pub received: Bytes,
}

/// Whose end of a connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// A program of the pod's.
    Application,
    /// The sidecar.
    Proxy,
}

/// Who asked for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The pod's end.
    Out,
    /// The other.
    In,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The other end has not answered.
    Connecting,
    /// Bytes may flow.
    Established,
    /// One end has ended it.
    Closing,
}

/// How bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// From socket to socket.
    Shortcut,
    /// By TCP.
    Tcp,
}

/// Why bytes go by TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Because {
    /// The shortcut is off on this node.
    Off,
    /// The pod, or the agent, allows no such reach.
    Reach,
    /// The other end is of no accelerated pod of this node.
    Elsewhere,
    /// It does not go through the proxy.
    Direct,
    /// On this kernel the sockets of applications keep to TCP.
    Applications,
    /// Something was done to the socket that the shortcut would do harm to.
    Hazard,
    /// The shortcut did not take it: its program's calls block, it is MPTCP, or it was made before the pod took part.
    NoEnd,
    /// It may go past TCP; nothing has yet.
    NothingYet,
}

impl Because {
    /// Every reason.
    pub const ALL: [Self; 8] = [
        Self::Off,
        Self::Reach,
        Self::Elsewhere,
        Self::Direct,
        Self::Applications,
        Self::Hazard,
        Self::NoEnd,
        Self::NothingYet,
    ];
}

/// Bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// By TCP.
    pub tcp: u64,
    /// Past it.
    pub shortcut: u64,
}
