//! What every long-running program of the project has: [`readiness`] and [`liveness`] as values, background [`tasks`],
//! [`signals`], sockets that [`listen`], room for connections ([`Slots`]), [`metrics`], the [`admin`] server with probes and those,
//! and [`logging`].

#![forbid(unsafe_code)]

pub mod admin;
mod bounded;
mod cache;
mod listen;
pub mod liveness;
pub mod logging;
pub mod metrics;
pub mod readiness;
pub mod signals;
mod slots;
pub mod tasks;

pub use cache::cached;
pub use listen::listen;
pub use liveness::{Heartbeat, Liveness};
pub use readiness::{Condition, Readiness};
pub use signals::Signals;
pub use slots::Slots;
pub use tasks::Tasks;
