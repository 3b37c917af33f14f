//! What the agent tells over its Unix socket ([`Status`] and [`Flows`], as JSON), and the client that asks for it ([`ask`]).
//!
//! The agent and the command line share this crate, so that the command line is built without the agent and its BPF programs.

#![forbid(unsafe_code)]

mod client;
mod flow;
mod shortcut;
mod status;

pub use client::{AskError, Probe, ask, ask_flows, probe};
pub use flow::{Because, Bytes, Direction, Flow, Flows, Side, Stage, Way};
pub use shortcut::{Check, Proves, ShortcutStatus};
pub use status::{PodState, PodStatus, Status};

/// Where the agent answers, unless told otherwise.
pub const SOCKET: &str = "/run/sidestep/agent.sock";

/// The path on the socket that is answered with a [`Status`].
pub const STATUS: &str = "/status";

/// The path on the socket below which a pod's namespace and name are answered with [`Flows`].
pub const FLOWS: &str = "/flows";
