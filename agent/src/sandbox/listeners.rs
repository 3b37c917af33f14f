//! The proxy's listening sockets in a namespace, as they are now. Whoever listened before the pod was armed is found
//! this way: activation depends on what is, not on having seen it happen.
//!
//! How many sockets, descriptors and processes there are is the pod's choice, so every step has a bound.

mod owners;

use std::os::fd::OwnedFd;

use sidestep_contract::Policy;
use sidestep_kernel::netns::{Namespace, NetnsError};

use super::diag;

/// A listening socket of the proxy's on its inbound port.
#[derive(Debug)]
pub struct Listener {
    /// The socket's inode number, which tells sockets apart.
    pub inode: u32,
    /// Whether it takes connections from outside; one on 127.0.0.1 only shows that the proxy is there.
    pub wildcard: bool,
    /// A duplicate of the proxy's descriptor, where it could be had.
    pub socket: Option<OwnedFd>,
    /// A process that holds it, where one was found.
    pub pid: Option<i32>,
}

/// What the proxy listens on.
#[derive(Debug, Default)]
pub struct Found {
    /// Its sockets on the inbound port.
    pub inbound: Vec<Listener>,
    /// Its sockets on the outbound port.
    pub outbound: Vec<Listener>,
    /// Whether it listens on every address on its outbound port.
    pub spread: bool,
}

/// Finds the proxy's listeners on its capture ports. `processes` are those that may hold them, asked for only where there
/// are any.
pub fn find(
    namespace: &Namespace,
    processes: impl FnOnce() -> Vec<i32>,
    policy: &Policy,
) -> Result<Found, NetnsError> {
    let io = |error| NetnsError::Io {
        path: namespace.path().to_owned(),
        error,
    };
    let inbound = policy.inbound_port.get();
    let outbound = policy.outbound_port.get();
    let of_proxy = |uid| policy.proxy_uids.contains(&uid);
    // Whose group decides is known only by the process that holds the socket.
    let may_be = |uid| of_proxy(uid) || !policy.proxy_gids.is_empty();
    let sockets = namespace
        .enter(|| diag::listening_on([inbound, outbound], may_be))?
        .map_err(io)?;
    if sockets.is_empty() {
        return Ok(Found::default()); // the usual case, and then no process need be looked at
    }
    let inodes = sockets.iter().map(|socket| socket.header.inode).collect();
    let owners = owners::find(namespace.inode().map_err(io)?, &processes(), policy, inodes);
    let mut found = Found::default();
    for socket in &sockets {
        let inode = socket.header.inode;
        let owner = owners.get(&inode);
        if !(of_proxy(socket.header.uid)
            || owner.is_some_and(|o| policy.proxy_gids.contains(&o.gid)))
        {
            continue;
        }
        let id = &socket.header.socket_id;
        let wildcard = id.source_address.is_unspecified();
        let listener = Listener {
            inode,
            wildcard,
            socket: owner.and_then(|owner| owner.duplicate(inode).ok()),
            pid: owner.map(|o| o.pid),
        };
        if id.source_port == inbound {
            found.inbound.push(listener);
        } else {
            found.spread |= wildcard;
            found.outbound.push(listener);
        }
    }
    Ok(found)
}
