//! The agent's life: pods come, change and go, it crashes and ends, and others use the machine beside it.

mod arming;
mod arming_steps;
mod bad_input;
mod crash;
mod descriptors;
mod leftovers;
mod lockdown;
mod neighbours;
mod pods;
mod restore;
mod share;
mod start;

use sidestep_kit::actor::{Actor, Seen};

/// The pod's address.
pub(crate) const POD: &str = "10.77.0.10";
/// An address that nobody has: who calls it and is answered was redirected.
pub(crate) const SERVICE: &str = "10.96.0.7:80";

/// The call reached this listener of the proxy, which knows the original destination.
#[track_caller]
pub(crate) fn assert_captured(caller: &Actor, listener: &str, destination: &str) -> Seen {
    let seen = caller
        .call(destination)
        .unwrap_or_else(|errno| panic!("{destination} is not reached: {errno}"));
    assert_eq!(seen.by, listener, "who answered: {seen:?}");
    assert_eq!(seen.original, Ok(destination.parse().expect("an address")));
    seen
}

/// The call reached this server, past any proxy.
#[track_caller]
pub(crate) fn assert_straight(caller: &Actor, server: &str, destination: &str) {
    let seen = caller
        .call(destination)
        .unwrap_or_else(|errno| panic!("{destination} is not reached: {errno}"));
    assert_eq!(seen.by, server, "who answered: {seen:?}");
}
