//! What webhook and agent share about a pod, and the only thing they share: the [`Policy`] read from its `istio-init`
//! container ([`IstioInit`]), or the reason to [`Leave`] it; the [`gate`] that container becomes; the names of our labels
//! and annotations ([`keys`]), and what they say about the [`shortcut`].
//!
//! Everything here is a pure function of a Pod: no client, no clock, no I/O. What cannot be read with certainty is
//! left to Istio, never guessed.

#![forbid(unsafe_code)]

#[macro_use]
mod words;

pub mod documents;
pub mod file;
pub mod gate;
mod init;
pub mod istio;
pub mod keys;
mod leave;
pub mod node;
mod pod;
mod policy;
mod port;
mod raw_sockets;
pub mod reporter;
mod runtime;
mod short;
pub mod shortcut;
pub mod waiting;

pub use init::{IstioInit, Redirector, istio_init, istio_inits};
pub use leave::{Leave, Origin};
pub use pod::{refuse_at_admission, refuse_for_life};
pub use policy::{Dns, GroupSet, Groups, Inbound, Include, MAX_GROUPS, MAX_IDS, Policy};
pub use port::{PortRange, PortRangeError};
pub use raw_sockets::RawSockets;
pub use runtime::Runtime;
pub use shortcut::{Delivery, Reach};
pub use words::UnknownWord;
