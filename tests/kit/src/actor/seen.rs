//! What both ends saw of one connection, and what tests expect of it.

use std::net::SocketAddr;

use super::{Actor, Errno};

/// What both ends saw of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The name of the server that answered.
    pub by: String,
    /// Where the server sees the connection come from.
    pub source: SocketAddr,
    /// The server's own address.
    pub local: SocketAddr,
    /// What the server gets for `SO_ORIGINAL_DST`.
    pub original: Result<SocketAddr, Errno>,
    /// The client's getsockname.
    pub own_name: SocketAddr,
    /// The client's getpeername.
    pub peer_name: SocketAddr,
}

impl Seen {
    /// Panics unless the connection reached this listener of the proxy, which knows the original destination.
    #[track_caller]
    pub fn assert_captured(&self, listener: &str, destination: &str) {
        assert_eq!(self.by, listener, "who answered: {self:?}");
        let destination = destination.parse().expect("an address");
        assert_eq!(self.original, Ok(destination), "original: {self:?}");
    }

    /// Panics unless the connection reached this server, past any proxy.
    #[track_caller]
    pub fn assert_straight(&self, server: &str) {
        assert_eq!(self.by, server, "who answered: {self:?}");
    }
}

/// Calls an address and panics unless the call reached this listener of the proxy, which knows the original destination.
#[track_caller]
pub fn assert_captured(caller: &Actor, listener: &str, destination: &str) -> Seen {
    let seen = call(caller, destination);
    seen.assert_captured(listener, destination);
    seen
}

/// Calls an address and panics unless the call reached this server, past any proxy.
#[track_caller]
pub fn assert_straight(caller: &Actor, server: &str, destination: &str) {
    call(caller, destination).assert_straight(server);
}

#[track_caller]
fn call(caller: &Actor, destination: &str) -> Seen {
    caller
        .call(destination)
        .unwrap_or_else(|errno| panic!("{destination} is not reached: {errno}"))
}
