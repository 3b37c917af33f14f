//! Requests through two real sidecars with mutual TLS, by iptables and by Sidestep with each reach of the shortcut:
//! `make bench-shortcut`.

mod cases;
mod cluster;
mod measure;
mod plot;
mod pods;
mod report;
mod setting;
mod stage;

pub use cases::Case;
pub use cluster::OnCluster;
pub use measure::{Plan, measure};
pub use plot::draw;
pub use pods::Pods;
pub use report::{Line, Report, Round};
pub use setting::Setting;
pub use stage::Stage;
