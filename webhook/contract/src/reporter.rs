//! Who reports Sidestep's Events: the name of the reporting controller.

/// The agents.
pub const AGENT: &str = "sidestep.dev/agent";

/// The webhook's replicas.
pub const WEBHOOK: &str = "sidestep.dev/webhook";
