//! The ABI between the agent and the BPF programs, and the decision both of them run.
//!
//! Nothing here allocates, does I/O or knows about BPF helpers: [`decide`] is generic over [`Lookups`], which is a set
//! of maps in the kernel and a set of vectors on a host. So a row of the specification exists once.
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "a BPF program has no calls to spare: what the decision needs must end up in one function"
)]

pub mod addr;
pub mod decide;
pub mod flow;
pub mod kernel;
pub mod pod;
pub mod row;
pub mod rules;
pub mod shortcut;
pub mod sighting;
#[cfg(feature = "user")]
mod user;

pub use addr::Addr;
pub use decide::{Attempt, Lookups, Proto, inbound, outbound};
pub use flow::{FlowKey, ListenerKey, Origin, SockState};
pub use kernel::KernelOffsets;
pub use pod::{Ids, MAX_IDS, PodRecord, ProxyState};
pub use row::{Row, Verdict};
pub use rules::{AddrKey, AddrSet, GroupKey, GroupSet, PortKey, PortSet};
pub use sighting::Sighting;

/// Version of every struct in this crate. It is part of the pin folder's name, so two layouts never share a map.
pub const ABI_VERSION: u32 = 1 + NEXT;

/// 1 in a build with another layout, for tests of upgrades.
const NEXT: u32 = if cfg!(feature = "next-layout") { 1 } else { 0 };

/// Where Istio's agent answers captured DNS, UDP and TCP (`IstioAgentDNSListenerPort`).
pub const DNS_PROXY_PORT: u16 = 15053;

/// The port of DNS itself.
pub const DNS_PORT: u16 = 53;

/// Stands for the namespace's cookie in the `sk_lookup` program, whose context does not tell it: the agent replaces it
/// in the instructions before it loads them for a pod.
pub const COOKIE_PLACE: u64 = u64::from_be_bytes(*b"SIDESTEP");

/// Slots for the listening sockets of one proxy: Envoy opens one per worker, and one that is steered to stands for its
/// whole reuseport group.
pub const LISTENER_SLOTS: u32 = 16;
