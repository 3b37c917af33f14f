//! The node agent: reads pods, and fills the maps of the BPF programs so that each pod's connections go where Istio's
//! iptables rules would have sent them.
//!
//! Data flows one way: [`pods`] (which are wanted) → [`reconcile`] (what to do about it) → [`dataplane`] (the kernel).
//! [`status`] shows the result. Modules use each other downwards only: [`run`] and [`node`] are on top; what several of them
//! speak of ([`pods::wanted`], [`sandbox`], [`rules`], `cgroup`) is at the bottom, on the floor of `sidestep_kernel`.

#![forbid(unsafe_code)]

pub mod args;
mod cgroup;
pub mod clock;
mod complaint;
pub mod dataplane;
pub mod metrics;
pub mod node;
pub mod pods;
pub mod preflight;
pub mod probe;
pub mod reconcile;
pub mod report;
pub mod run;
pub mod sandbox;
pub mod shortcut;
pub mod status;
pub mod uninstall;
mod worker;

/// What [`dataplane`] writes, compiled from a policy.
pub use sidestep_rules as rules;
