//! From a pod's policy to a decision, without a kernel.
//!
//! [`compile`] turns a [`Policy`](sidestep_contract::Policy) and the [`Facts`] of a network namespace into [`Rules`]: what the
//! agent writes into the maps. [`Rules`] answers the decision function's look-ups as those maps do, so
//! [`Rules::outbound`] and [`Rules::inbound`] give the row that decides in the kernel. The agent arms pods with it; the
//! webhook asks whether a gate would see its own probe captured. Nothing here does I/O.

#![forbid(unsafe_code)]

mod allowed;
mod compile;
mod decide;
mod facts;
mod prefix;
mod users;

pub use allowed::{Allowed, Reach};
pub use compile::{ADDRESSES, CompileError, Rules, addr, compile, ip};
pub use decide::Outgoing;
pub use facts::{Facts, PASSTHROUGH6};
pub use prefix::Prefix;
pub use users::{Unmapped, Users};
