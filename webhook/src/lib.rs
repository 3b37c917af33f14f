//! The decision about a pod, and the admission server around it.
//!
//! [`decide`] takes values and returns a value; [`patch`] turns that into patch operations on the pod as it was sent;
//! [`offline`] does both for files and [`admission`] for reviews. The rest, behind the feature `server`, is the server:
//! `server` answers, `world` knows the cluster, `tls` holds the certificate, `leader` does what one replica does for all,
//! and `run` puts them together.

#![forbid(unsafe_code)]

pub mod admission;
pub mod cluster;
pub mod decide;
mod edit;
mod inits;
pub mod offline;
pub mod patch;
mod probe;
mod reason;
pub mod settings;

#[cfg(feature = "server")]
pub mod args;
#[cfg(feature = "server")]
pub mod leader;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
pub mod run;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod tls;
#[cfg(feature = "server")]
pub mod world;

pub use reason::Reason;
