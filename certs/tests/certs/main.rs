//! The certificates' life, without a cluster.

mod common;
mod fake;
mod garbage;
mod keeper;
mod life;
mod plan;
