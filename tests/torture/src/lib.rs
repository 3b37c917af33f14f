//! Torture of the shortcut: random two-way streams between the processes of two pods, every byte checked by its position.
//!
//! A connection's number decides everything about it ([`plan`]), so a failure can be repeated. [`World`] is two pods on a
//! network with the shortcut's programs, without an agent; in each pod runs a [`worker`], which plays ends (`end`, `stream`)
//! or measures (`timing`). [`run`](mod@run) goes through rounds of connections and keeps how far it is.
//!
//! [`kernels`] does this and the other suites on each kernel: `make kernels`.

mod end;
pub mod kernels;
pub mod plan;
pub mod run;
mod stream;
mod timing;
pub mod worker;
mod world;

pub use world::{Flow, World};
