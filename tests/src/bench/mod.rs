//! Requests through two real sidecars with mutual TLS, by iptables and by Sidestep with each reach of the shortcut:
//! `make bench-shortcut`.

mod cases;
mod measure;
mod plot;
mod report;
mod setting;

pub use cases::Case;
pub use measure::{Plan, measure};
pub use plot::draw;
pub use report::{Line, Report, Round};
pub use setting::{Prepared, Setting};
