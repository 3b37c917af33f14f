//! The node agent: reads pods, and fills the maps of the BPF programs so that each pod's connections go where Istio's
//! iptables rules would have sent them.
//!
//! Data flows one way: [`source`] (pods wanted) → [`reconcile`] (what to do about it) → [`dataplane`] (the kernel).
//! [`status`] shows the result. Modules use each other downwards only: [`run`] and [`node`] are on top; what several of them
//! speak of ([`wanted`], [`allowed`], [`link`], [`netns`]) is at the bottom.

pub mod allowed;
mod ancestors;
pub mod args;
mod btf;
pub mod clock;
pub mod dataplane;
pub mod discover;
pub mod facts;
pub mod link;
pub mod listeners;
pub mod metrics;
pub mod netns;
pub mod node;
pub mod pods;
pub mod preflight;
pub mod probe;
pub mod reconcile;
pub mod report;
pub mod rules;
pub mod run;
pub mod sandbox;
pub mod shortcut;
pub mod source;
pub mod status;
mod sys;
pub mod uninstall;
mod verifier;
pub mod wanted;
pub mod watch;
mod worker;
