//! The decision of each check: from facts to a verdict, and nothing else. A decision has no client and no clock.

pub(super) mod agents;
pub(super) mod api;
pub(super) mod certificates;
pub(super) mod istio;
pub(super) mod nodes;
pub(super) mod pods;
pub(super) mod reach;
pub(super) mod sidestep;

#[cfg(test)]
mod tests;
