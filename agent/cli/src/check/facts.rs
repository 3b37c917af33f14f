//! What checks decide from: values, read by [`gather`](super::gather).

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use sidestep_certs::cert::Cert;

use super::finding::Stage;
use crate::cluster::{AgentPod, Answer, Seen, SeenNode, SeenPod};

/// A fact; or why it is not known.
pub(super) type Known<T> = Result<T, String>;

/// Everything that is known of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) stage: Stage,
    pub(super) now: Timestamp,
    /// The namespace that Sidestep is installed in.
    pub(super) home: String,
    /// Major and minor version of the API server.
    pub(super) kubernetes: (u32, u32),
    pub(super) rights: Vec<Right>,
    pub(super) nodes: Known<Vec<SeenNode>>,
    pub(super) istiods: Known<Vec<Istiod>>,
    /// Whether istio-cni redirects pods.
    pub(super) istio_cni: Known<bool>,
    pub(super) registrations: Known<Vec<Registration>>,
    pub(super) namespace: Known<Option<NamespaceFact>>,
    pub(super) webhook: Known<Option<Workload>>,
    pub(super) daemonset: Known<Option<Workload>>,
    /// The certificates of the webhook's Secret: its own, and those that signed it; none if there is no Secret.
    pub(super) certificates: Known<Vec<Cert>>,
    /// Names of ValidatingAdmissionPolicies that are bound.
    pub(super) policies: Known<BTreeSet<String>>,
    pub(super) lease: Known<Option<LeaseFact>>,
    pub(super) probe: Probe,
    /// What would become of a new pod; absent where no namespace is injected.
    pub(super) trial: Option<Trial>,
    pub(super) agents: Known<Vec<(AgentPod, Answer)>>,
    pub(super) pods: Known<Vec<SeenPod>>,
    pub(super) events: Known<Vec<EventFact>>,
}

/// Something that one may do, or not.
#[derive(Clone, Debug)]
pub(super) struct Right {
    /// As people write it: `get secrets`.
    pub(super) what: String,
    pub(super) allowed: Known<bool>,
}

/// A Deployment of Istio's control plane.
#[derive(Clone, Debug)]
pub(super) struct Istiod {
    pub(super) place: String,
    pub(super) revision: String,
    /// As its image's tag or its label has it.
    pub(super) version: Option<String>,
    pub(super) available: i32,
}

/// A MutatingWebhookConfiguration.
#[derive(Clone, Debug)]
pub(super) struct Registration {
    pub(super) name: String,
    pub(super) made: Option<Timestamp>,
    /// Whether it is Istio's injector, and of which revision.
    pub(super) injects: Option<String>,
    /// Our webhook, if it is in it.
    pub(super) ours: Option<OurWebhook>,
}

/// Our webhook, as it is registered.
#[derive(Clone, Debug)]
pub(super) struct OurWebhook {
    pub(super) reinvoked: bool,
    pub(super) ignores_failures: bool,
    pub(super) timeout: Duration,
    /// The certificates of its caBundle; an error if that is not one.
    pub(super) trusted: Result<Vec<Cert>, String>,
    /// Namespaces whose pods it never sees.
    pub(super) excluded: BTreeSet<String>,
}

/// The namespace that Sidestep is installed in.
#[derive(Clone, Debug)]
pub(super) struct NamespaceFact {
    /// The Pod Security Standard that it enforces.
    pub(super) enforces: Option<String>,
}

/// A Deployment or DaemonSet.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) desired: i32,
    /// Available or ready.
    pub(super) ready: i32,
    pub(super) image: String,
}

/// The Lease by which the webhook's replicas choose a leader.
#[derive(Clone, Debug)]
pub(super) struct LeaseFact {
    pub(super) holder: String,
    pub(super) renewed: Option<Timestamp>,
}

/// A dry-run creation of a pod that looks injected.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) namespace: String,
    /// Whether the webhook wrote its answer on the pod; or why no pod was made.
    pub(super) answered: Known<bool>,
    pub(super) took: Duration,
    /// What the API server met on the way to the webhook's Service; only asked where the webhook did not answer.
    pub(super) way: Option<Known<()>>,
}

/// A dry-run creation of a plain pod in an injected namespace.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) namespace: String,
    /// What became of it; `None` if Istio did not inject it.
    pub(super) became: Known<Option<Seen>>,
}

/// A Warning of ours.
#[derive(Clone, Debug, Serialize)]
pub(super) struct EventFact {
    pub(super) reason: String,
    /// What it is about.
    pub(super) object: String,
    pub(super) note: String,
    pub(super) at: Option<Timestamp>,
}

impl Facts {
    /// Our registration.
    pub(super) fn ours(&self) -> Option<(&Registration, &OurWebhook)> {
        let mut all = self.registrations.as_ref().ok()?.iter();
        all.find_map(|one| Some((one, one.ours.as_ref()?)))
    }

    /// Whether the API server trusts the webhook's certificate; `None` if one of both is not known.
    pub(super) fn is_trusted(&self) -> Option<bool> {
        let (_, ours) = self.ours()?;
        let trusted = ours.trusted.as_ref().ok()?;
        let chain = self.certificates.as_ref().ok()?;
        let is_known = |cert: &Cert| {
            let mut trusted = trusted.iter();
            trusted.any(|ca| cert == ca || cert.is_signed_by(ca))
        };
        (!trusted.is_empty() && !chain.is_empty()).then(|| chain.iter().any(is_known))
    }

    /// Time since; zero for what is to come.
    pub(super) fn age(&self, at: Timestamp) -> Duration {
        self.now.duration_since(at).try_into().unwrap_or_default()
    }
}

/// Names, as many as one can read.
pub(super) fn listed<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    const MOST: usize = 8;
    let names: Vec<T> = names.into_iter().collect();
    let shown: Vec<_> = names.iter().take(MOST).map(AsRef::as_ref).collect();
    let shown = shown.join(", ");
    match names.len().saturating_sub(MOST) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
