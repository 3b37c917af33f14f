//! Cluster-wide settings.

use std::time::Duration;

use sidestep_contract::gate::PROBE_TIMEOUT;
use sidestep_contract::words;

pub use sidestep_contract::{Delivery, Reach};

/// [`Settings::ready_percent`] where nobody says.
pub const READY_PERCENT: u8 = 90;

/// What the cluster's owner decided. Pods and namespaces may say otherwise where that is theirs to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What happens to pods that say nothing, in namespaces that say nothing.
    pub enrolment: Enrolment,
    /// Which of the pods that istio-cni redirects are accelerated.
    pub istio_cni: IstioCni,
    /// How far the shortcut reaches where neither pod nor namespace says.
    pub reach: Reach,
    /// How long a gate waits for its node's agent.
    pub probe_timeout: Duration,
    /// Whether pods are kept off nodes that cannot run Sidestep or have no agent.
    pub avoid_unsupported: bool,
    /// Of how many of 100 nodes that should have a ready agent one must be ready before a pod is gated that may run on several
    /// nodes.
    pub ready_percent: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enrolment: Enrolment::OptOut,
            istio_cni: IstioCni::All,
            reach: Reach::Namespace,
            probe_timeout: PROBE_TIMEOUT,
            avoid_unsupported: false,
            ready_percent: READY_PERCENT,
        }
    }
}

words! {
    /// Whether a pod must ask.
    Enrolment, "opt-out, opt-in or none" {
        /// Injected pods are accelerated unless they or their namespaces refuse.
        OptOut = "opt-out",
        /// Only those that ask, or whose namespaces do.
        OptIn = "opt-in",
        /// None, whatever pods and namespaces say; gates that carry their `istio-init` become it again.
        None = "none",
    }
}

words! {
    /// Which of the pods that istio-cni redirects are accelerated, as far as they are at all.
    IstioCni, "all, gate-first or none" {
        /// All, though what runs before the gate is not redirected, as it is not before `istio-init` either.
        All = "all",
        /// Those with no init container before `istio-validation`.
        GateFirst = "gate-first",
        /// None.
        None = "none",
    }
}
