//! Pods by name and uid, and what is wanted for each, whoever says so.

use std::{fmt, net::IpAddr};

use k8s_openapi::api::core::v1::Pod;
use sidestep_contract::{Leave, Policy, RawSockets, keys};
use thiserror::Error;

use crate::rules::Allowed;

/// A pod's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// Its Kubernetes namespace; `default` where the file names none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod's uid, which is never used again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodUid(String);

impl PodUid {
    /// A uid as the API server writes it: letters, digits and dashes. Static pods have a plain hash.
    pub fn new(uid: &str) -> Option<Self> {
        let fits = (16..=64).contains(&uid.len())
            && uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        fits.then(|| Self(uid.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A pod to be armed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where its network namespace is.
    pub place: Place,
    /// What must happen to its connections.
    pub policy: Policy,
    /// How far its bytes may go past TCP.
    pub allowed: Allowed,
    /// What its programs may send past every `connect`, as it was seen first.
    pub raw_sockets: RawSockets,
    /// Name servers of its spec's `dnsConfig`.
    pub name_servers: Vec<IpAddr>,
    /// The addresses that Kubernetes knows of: by these alone others reach it past TCP. A change is a reason to look again.
    pub addresses: Vec<IpAddr>,
    /// All of its containers have ended, for good.
    pub ended: bool,
}

/// Where a pod's network namespace is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A name under `/run/netns`, or an absolute path.
    Named(String),
    /// Where the processes are that the cgroup of the pod of this uid holds.
    Cgroup(PodUid),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Cgroup(uid) => write!(f, "of pod uid {uid}"),
        }
    }
}

/// What the source says of a pod.
pub type Entry = Result<Wanted, LeaveReason>;

/// Why a pod is not armed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LeaveReason {
    /// The contract says so.
    #[error(transparent)]
    Contract(#[from] Leave),
    /// It has the label, and nothing that waits for the agent. Nobody but the webhook writes the label, and with it the
    /// gate; so somebody else did.
    #[error(
        "it has the label {} but its istio-init is not a gate: Istio's own rules stay in charge",
        keys::ACCELERATED
    )]
    NoGate,
}

impl LeaveReason {
    /// The reason in a word, in kebab case. Stable.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Contract(leave) => leave.reason(),
            Self::NoGate => "no-gate",
        }
    }
}

/// The name servers of a pod's `dnsConfig`.
pub(crate) fn name_servers(pod: &Pod) -> Vec<IpAddr> {
    let spec = pod.spec.as_ref();
    let dns = spec.and_then(|s| s.dns_config.as_ref()?.nameservers.as_ref());
    dns.into_iter()
        .flatten()
        .filter_map(|a| a.parse().ok())
        .collect()
}
