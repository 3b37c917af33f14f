//! Torture of the shortcut: random two-way streams between the processes of two pods, every byte checked by its position.

mod end;
pub mod plan;
pub mod run;
mod stream;
mod timing;
pub mod worker;
mod world;

pub use world::{Flow, World};
