//! Where connections go: each case runs with Istio's own iptables rules, which are right by definition, and with
//! Sidestep.

mod differential;
mod dns;
mod identity;
mod inbound;
mod ipv6;
mod isolation;
mod outbound;
mod policy;
mod proxy_down;
mod sockets;

use std::net::IpAddr;

use sidestep_kit::actor::{Errno, Seen};

/// The pod's address, for which the fixtures' rules were recorded.
pub(crate) const POD: &str = "10.77.0.10";
/// An address that nobody has: who calls it and is answered was redirected.
pub(crate) const SERVICE: &str = "10.96.0.7:80";

/// The connection reached this listener of the proxy, and nothing of the original is lost: both ends see the same client
/// address, the proxy gets the original destination, and the client believes to be connected to it.
#[track_caller]
pub(crate) fn assert_captured(
    seen: Result<Seen, Errno>,
    listener: &str,
    source: &str,
    destination: &str,
) {
    let seen = seen.unwrap_or_else(|errno| panic!("{destination} is not reached: {errno}"));
    assert_eq!(seen.by, listener, "who answered: {seen:?}");
    assert_eq!(unmapped(seen.source.ip()), ip(source), "source: {seen:?}");
    assert_eq!(
        unmapped(seen.own_name.ip()),
        ip(source),
        "own name: {seen:?}"
    );
    let destination = destination.parse().expect("an address");
    assert_eq!(seen.original, Ok(destination), "original destination");
    assert_eq!(unmapped(seen.peer_name.ip()), destination.ip(), "{seen:?}");
    assert_eq!(seen.peer_name.port(), destination.port(), "{seen:?}");
}

/// The connection reached this server directly, from this address.
#[track_caller]
pub(crate) fn assert_straight(
    seen: Result<Seen, Errno>,
    server: &str,
    source: &str,
    destination: &str,
) {
    let seen = seen.unwrap_or_else(|errno| panic!("{destination} is not reached: {errno}"));
    assert_eq!(seen.by, server, "who answered: {seen:?}");
    assert_eq!(unmapped(seen.source.ip()), ip(source), "source: {seen:?}");
    let destination: std::net::SocketAddr = destination.parse().expect("an address");
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
