//! What every long-running program of the project has: [`readiness`] as a value, [`signals`], the [`admin`] server with
//! probes and metrics, and [`logging`].

#![forbid(unsafe_code)]

pub mod admin;
pub mod logging;
pub mod readiness;
pub mod signals;

pub use readiness::{Condition, Readiness};
pub use signals::Signals;
