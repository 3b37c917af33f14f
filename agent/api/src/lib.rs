//! What the agent tells over its Unix socket ([`Status`], as JSON), and the client that asks for it ([`ask`]).
//!
//! The agent and the command line share this crate, so that the command line is built without the agent and its BPF programs.

#![forbid(unsafe_code)]

mod client;
mod shortcut;
mod status;

pub use client::{AskError, Probe, ask, probe};
pub use shortcut::{Check, Proves, ShortcutStatus};
pub use status::{PodState, PodStatus, Status};

/// Where the agent answers, unless told otherwise.
pub const SOCKET: &str = "/run/sidestep/agent.sock";

/// The path on the socket that is answered with a [`Status`].
pub const STATUS: &str = "/status";
