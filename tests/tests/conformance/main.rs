//! Where connections go: each case runs with Istio's own iptables rules, which are right by definition, and with
//! Sidestep.

mod calls;
mod differential;
mod dns;
mod four;
mod identity;
mod inbound;
mod ipv6;
mod isolation;
mod outbound;
mod policy;
mod proxy_down;
mod random;
mod sockets;
mod world;

use std::net::{IpAddr, SocketAddr};

use sidestep_kit::actor::{Errno, Seen};

pub(crate) use sidestep_kit::redirect::{POD, SERVICE};

/// The connection reached this listener of the proxy, and nothing of the original is lost: both ends see the same client
/// address, the proxy gets the original destination, and the client believes to be connected to it.
#[track_caller]
pub(crate) fn assert_captured_from(
    seen: Result<Seen, Errno>,
    listener: &str,
    source: &str,
    destination: &str,
) {
    let seen = seen.unwrap_or_else(|errno| panic!("{destination} is not reached: {errno}"));
    seen.assert_captured(listener, destination);
    assert_eq!(unmapped(seen.source.ip()), ip(source), "source: {seen:?}");
    assert_eq!(
        unmapped(seen.own_name.ip()),
        ip(source),
        "own name: {seen:?}"
    );
    let destination: SocketAddr = destination.parse().expect("an address");
    assert_eq!(unmapped(seen.peer_name.ip()), destination.ip(), "{seen:?}");
    assert_eq!(seen.peer_name.port(), destination.port(), "{seen:?}");
}

/// The connection reached this server directly, from this address.
#[track_caller]
pub(crate) fn assert_straight_from(
    seen: Result<Seen, Errno>,
    server: &str,
    source: &str,
    destination: &str,
) {
    let seen = seen.unwrap_or_else(|errno| panic!("{destination} is not reached: {errno}"));
    seen.assert_straight(server);
    assert_eq!(unmapped(seen.source.ip()), ip(source), "source: {seen:?}");
    let destination: SocketAddr = destination.parse().expect("an address");
    assert_eq!(unmapped(seen.peer_name.ip()), destination.ip(), "{seen:?}");
    assert_eq!(unmapped(seen.local.ip()), destination.ip(), "{seen:?}");
    assert_eq!(seen.local.port(), destination.port(), "{seen:?}");
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
