//! The agent's life: pods come, change and go, it crashes and ends, and others use the machine beside it.

mod arming;
mod arming_steps;
mod bad_input;
mod crash;
mod descriptors;
mod layouts;
mod leftovers;
mod lockdown;
mod neighbours;
mod owners;
mod pods;
mod restore;
mod share;
mod start;

pub(crate) use sidestep_kit::{
    actor::{assert_captured, assert_straight},
    redirect::{POD, SERVICE},
};
