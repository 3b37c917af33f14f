//! The shortcut: bytes arrive, all of them and in order, whatever the two ends do; and what it must not do.

mod accepts;
mod agent;
mod between_pods;
mod churn;
mod hazards;
mod left;
mod manners;
mod memory;
mod preflight;
mod reach;
mod readers;
mod selftest;
mod share;
mod stage;
mod stall;
mod torture;
mod ways;
