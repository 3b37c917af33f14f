//! Requests through two real sidecars with mutual TLS, by iptables and by Sidestep with each reach of the shortcut:
//! `make bench`.
//!
//! [`measure`] goes through rounds of [`Case`]s (what is asked) in [`Setting`]s (how pods are redirected) on a [`Stage`]: two
//! pods of the kit ([`Pods`]) or of a real cluster ([`OnCluster`]). It fills a [`Report`], which prints, and which [`draw`]
//! makes a picture of. The program `sidestep-demo` has measurements and a report of its own, for people in a hurry.

mod cases;
mod cluster;
pub mod exact;
mod measure;
mod plot;
mod pods;
mod report;
mod setting;
mod stage;
pub mod statistics;

pub use cases::Case;
pub use cluster::OnCluster;
pub use measure::{Plan, measure};
pub use plot::draw;
pub use pods::Pods;
pub use report::{Line, Report, Round};
pub use setting::Setting;
pub use stage::Stage;
