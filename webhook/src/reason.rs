//! Why a pod is left to Istio: for a reason in the pod itself (the contract's), or for one in the cluster.

use sidestep_contract::Leave;
use sidestep_rules::CompileError;
use thiserror::Error;

use crate::cluster::{ARCHITECTURES, Share};

/// Why an injected pod is left as Istio made it. `Display` is a sentence for people; [`word`](Reason::word) is the same in
/// metrics, annotations and tests, and never changes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Reason {
    /// Something about the pod itself.
    #[error(transparent)]
    Pod(#[from] Leave),
    /// istio-cni redirects the pod, and the cluster's setting is to leave its pods.
    #[error(
        "istio-cni redirects the pod, and the cluster's setting is to leave such pods (istioCni: none)"
    )]
    IstioCni,
    /// istio-cni redirects an init container that runs before the gate, and nothing would.
    #[error(
        "init container {name:?} runs before istio-validation: istio-cni redirects it, and nothing would redirect it before Sidestep's \
         gate (istioCni: gate-first)"
    )]
    BeforeTheGate {
        /// The first of them.
        name: String,
    },
    /// The cluster's setting is opt-in, and neither the pod nor its namespace opts in.
    #[error(
        "neither the pod nor its namespace has {}=true, and the cluster's setting is opt-in",
        sidestep_contract::keys::ENABLED
    )]
    NotOptedIn,
    /// A label or annotation of ours has an unknown value.
    #[error("{place} is {value:?}, expected {expected}")]
    BadSetting {
        /// The label or annotation, and the object that has it.
        place: String,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// No agent is ready, so nobody would open the gate.
    #[error("no node agent is ready anywhere in the cluster")]
    NoAgent,
    /// Too few agents are ready: the pod might come to a node where nobody opens its gate.
    #[error(
        "an agent is ready on {} of the {} nodes that should have one, fewer than {percent} % (readiness.percent): look at the pods of \
         DaemonSet sidestep-agent",
        .share.ready, .share.of
    )]
    TooFewAgents {
        /// How many are.
        share: Share,
        /// How many of 100 should be.
        percent: u8,
    },
    /// The pod may run only where nobody would open its gate.
    #[error("the pod may run on no node where Sidestep does: {constraint}")]
    NoUsableNode {
        /// What of the pod excludes the others.
        constraint: String,
    },
    /// The pod must run on this node, which has no ready agent.
    #[error("no agent is ready on node {node:?}, to which the pod is bound")]
    NoAgentOnNode {
        /// The node.
        node: String,
    },
    /// The pod must run on this node, which cannot run Sidestep.
    #[error("node {node:?}, to which the pod is bound, cannot run Sidestep")]
    UnsupportedNode {
        /// The node.
        node: String,
    },
    /// The pod may run only on nodes of architectures that Sidestep has no images for.
    #[error(
        "the pod's node selector or required node affinity admits no node of an architecture that Sidestep runs on: {}",
        ARCHITECTURES.join(", ")
    )]
    UnsupportedArchitecture,
    /// The policy is larger than what a pod may have of a map.
    #[error("{0}")]
    TooManyRules(CompileError),
    /// Under this policy the gate's own probe is not captured, so the gate would never open.
    #[error(
        "the gate would never open: under this policy its probe to 127.0.0.6:{port} or [::6]:{port} is not captured"
    )]
    GateStaysShut {
        /// The probe's port.
        port: u16,
    },
    /// The cluster's setting is to accelerate no pod.
    #[error("the cluster's setting is to accelerate no pod (enrolment: none)")]
    EnrolmentNone,
    /// The pod's gate, or the pod around it, was changed so that no agent would arm the pod; its iptables rules are gone,
    /// too. The pod cannot be left: it is refused.
    #[error(
        "Sidestep's gate (init container istio-init) was changed so that nothing redirects the pod: {change}. Keep other \
         webhooks from changing istio-init, or create the pod from a template without the gate"
    )]
    GateChanged {
        /// What was changed, as far as it is known.
        change: String,
    },
    /// The pod's runtime class does not show whether the pod uses the node's kernel.
    #[error(
        "runtime class {class:?} may give the pod a kernel of its own; if it does not, say so by {}=true on the pod",
        sidestep_contract::keys::ENABLED
    )]
    UnknownRuntime {
        /// The class.
        class: String,
    },
    /// The labels of the pod's namespace could not be read.
    #[error("labels of namespace {namespace:?} are not known")]
    NamespaceUnknown {
        /// The namespace.
        namespace: String,
    },
}

/// Most characters of a reason: annotations have a limit.
const LONGEST: usize = 400;

impl Reason {
    /// The reason in a word, in kebab case. Stable.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Pod(leave) => leave.reason(),
            Self::IstioCni => "istio-cni",
            Self::BeforeTheGate { .. } => "before-the-gate",
            Self::NotOptedIn => "not-opted-in",
            Self::BadSetting { .. } => "bad-setting",
            Self::NoAgent => "no-agent",
            Self::TooFewAgents { .. } => "too-few-agents",
            Self::NoUsableNode { .. } => "no-usable-node",
            Self::NoAgentOnNode { .. } => "no-agent-on-node",
            Self::UnsupportedNode { .. } => "unsupported-node",
            Self::UnsupportedArchitecture => "unsupported-architecture",
            Self::TooManyRules(_) => "too-many-rules",
            Self::GateStaysShut { .. } => "gate-stays-shut",
            Self::EnrolmentNone => "enrolment-none",
            Self::GateChanged { .. } => "gate-changed",
            Self::UnknownRuntime { .. } => "unknown-runtime",
            Self::NamespaceUnknown { .. } => "namespace-unknown",
        }
    }

    /// `word: sentence`, as the annotation has it.
    pub fn annotation(&self) -> String {
        shortened(&format!("{}: {self}", self.word()))
    }
}

/// At most [`LONGEST`] characters of `text`.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
