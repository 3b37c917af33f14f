//! Why a pod is left exactly as Istio made it.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use thiserror::Error;

/// Where a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// This flag on the command line.
    Flag {
        /// The long name, without dashes.
        long: &'static str,
        /// The one-letter name, if it has one.
        short: Option<char>,
    },
    /// This environment variable.
    Env(&'static str),
    /// The default of this flag, which was not given.
    Absent {
        /// The long name, without dashes.
        long: &'static str,
        /// The one-letter name, if it has one.
        short: Option<char>,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag { long, short: None } => write!(f, "--{long}"),
            Self::Absent { long, short: None } => write!(f, "--{long} (not given)"),
            Self::Flag {
                long,
                short: Some(short),
            } => write!(f, "-{short} (--{long})"),
            Self::Absent {
                long,
                short: Some(short),
            } => write!(f, "-{short} (--{long}, not given)"),
        }
    }
}

/// Why a pod is left exactly as Istio made it. `Display` is a sentence for people that names flag and value;
/// [`reason`](Leave::reason) is a word for metrics, annotations and tests, and never changes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Leave {
    /// No init container is named `istio-init` or `istio-validation`.
    #[error("no init container is named istio-init or istio-validation")]
    NoIstioInit,
    /// There are several, and nothing tells which of them counts.
    #[error("{count} init containers are named istio-init or istio-validation, expected one")]
    SeveralIstioInit {
        /// How many.
        count: usize,
    },
    /// The container has the name `istio-init` but runs another program.
    #[error("istio-init runs {found}, not istio-iptables as its first argument")]
    NotIstioIptables {
        /// Its command, or its first argument.
        found: String,
    },
    /// The pod is in the node's own network namespace.
    #[error("the pod has hostNetwork: true")]
    HostNetwork,
    /// The pod runs in a virtual machine or on a kernel in user space, so the node's kernel does not see its sockets.
    #[error(
        "runtime class {class:?} gives the pod a kernel of its own, by its overhead or by its name"
    )]
    SandboxedRuntime {
        /// The class's name.
        class: String,
    },
    /// The pod comes from a file on the node, and cannot be changed through the API.
    #[error("the pod is a mirror pod (annotation kubernetes.io/config.mirror)")]
    MirrorPod,
    /// The pod gets further interfaces, by Multus, GKE or OVN-Kubernetes.
    #[error("{place} asks for further networks: {value:?}")]
    SeveralNetworks {
        /// The annotation, or the namespace's label.
        place: String,
        /// Its value.
        value: String,
    },
    /// A container may make networks of its own in the pod, and packets that the pod forwards for them pass no socket.
    #[error(
        "container {container:?} may change the pod's network ({right}), and packets that the pod forwards would go around the \
         proxy; the pod's annotation {}=allow lets them",
        crate::keys::RAW_SOCKETS
    )]
    MayForward {
        /// The container.
        container: String,
        /// `privileged`, or the capability.
        right: &'static str,
    },
    /// The pod or its namespace opted out.
    #[error("opted out by {key}={value}")]
    OptedOut {
        /// The label's or annotation's key.
        key: String,
        /// Its value.
        value: String,
    },
    /// A flag that the parser does not know.
    #[error("unknown flag {flag} in argument {argument:?}")]
    UnknownFlag {
        /// The flag with its dashes.
        flag: String,
        /// The argument that it stands in.
        argument: String,
    },
    /// Dashes without a name behind them.
    #[error("argument {argument:?} is not a flag")]
    BadSyntax {
        /// The argument.
        argument: String,
    },
    /// The last argument is a flag that wants a value.
    #[error("{origin} has no value")]
    MissingValue {
        /// The flag.
        origin: Origin,
    },
    /// A value that Istio or iptables would refuse, or that cannot be followed exactly.
    #[error("{origin}: {value:?} is not {expected}")]
    BadValue {
        /// Where it was read.
        origin: Origin,
        /// The value, or the item of a list.
        value: String,
        /// What it should have been.
        expected: &'static str,
    },
    /// A port by its name in the image's /etc/services.
    #[error("{origin}: {value:?} is a service name, whose port only the image knows")]
    ServiceName {
        /// Where it was read.
        origin: Origin,
        /// The name.
        value: String,
    },
    /// A user or group by its name in the image's /etc/passwd or /etc/group.
    #[error("{origin}: {value:?} is a name, whose id only the image knows")]
    IdName {
        /// Where it was read.
        origin: Origin,
        /// The name.
        value: String,
    },
    /// The proxy runs as the user `istio-proxy` of the image, whose id only the image knows.
    #[error("{origin} names no user id; only the image knows who istio-proxy is")]
    NoUid {
        /// Where it was read.
        origin: Origin,
    },
    /// The proxy runs as root only, and the gate needs an id without privileges.
    #[error("{origin}: {value:?} has no user id but root's, and the gate must not run as root")]
    OnlyRoot {
        /// Where it was read.
        origin: Origin,
        /// The list of ids.
        value: String,
    },
    /// More ids or groups than a policy holds.
    #[error("{origin} has {count} ids, at most {max} are supported")]
    TooManyIds {
        /// Where it was read.
        origin: Origin,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// The mode is TPROXY, which is not a redirection.
    #[error("{origin} is TPROXY")]
    Tproxy {
        /// Where it was read.
        origin: Origin,
    },
    /// The mode is NONE: nothing is intercepted.
    #[error("{origin} is NONE")]
    NoInterception {
        /// Where it was read.
        origin: Origin,
    },
    /// Interfaces are excluded. At connect, nobody knows yet by which interface a connection will leave.
    #[error("{origin} excludes interfaces: {value:?}")]
    ExcludedInterfaces {
        /// Where it was read.
        origin: Origin,
        /// The interfaces.
        value: String,
    },
    /// The pod forwards traffic into virtual machines of its own.
    #[error("{origin} reroutes interfaces: {value:?}")]
    KubevirtInterfaces {
        /// Where it was read.
        origin: Origin,
        /// The interfaces.
        value: String,
    },
    /// `--dry-run`, `--cleanup-only`, `--cni-mode`, `--network-namespace`, `--help`: not what an injector writes.
    #[error("{origin} is set ({value:?}), which no injector does")]
    NotAnInjectors {
        /// Where it was read.
        origin: Origin,
        /// Its value.
        value: String,
    },
    /// The container validates already, and is not our gate.
    #[error("{origin} is there already, and the container is not Sidestep's gate")]
    ForeignValidation {
        /// Where it was read.
        origin: Origin,
    },
    /// A variable whose value is not in the pod.
    #[error("environment variable {name} has its value from elsewhere (valueFrom)")]
    ValueFrom {
        /// The variable.
        name: String,
    },
    /// Variables whose names are not in the pod.
    #[error("istio-init takes environment variables from elsewhere (envFrom)")]
    EnvFrom,
    /// A variable given twice, with two values: which one counts depends on the container runtime.
    #[error("environment variable {name} is given twice, as {first:?} and as {second:?}")]
    EnvTwice {
        /// The variable.
        name: String,
        /// Its first value.
        first: String,
        /// A later one.
        second: String,
    },
    /// A text with a reference that kubelet expands.
    #[error("{place} refers to another variable: {value:?}")]
    VariableReference {
        /// The variable or the argument.
        place: String,
        /// The text.
        value: String,
    },
}

impl Leave {
    /// The reason in a word, in kebab case. Stable.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::NoIstioInit => "no-istio-init",
            Self::SeveralIstioInit { .. } => "several-istio-init",
            Self::NotIstioIptables { .. } => "not-istio-iptables",
            Self::HostNetwork => "host-network",
            Self::SandboxedRuntime { .. } => "sandboxed-runtime",
            Self::MirrorPod => "mirror-pod",
            Self::SeveralNetworks { .. } => "several-networks",
            Self::MayForward { .. } => "may-forward",
            Self::OptedOut { .. } => "opted-out",
            Self::UnknownFlag { .. } => "unknown-flag",
            Self::BadSyntax { .. } => "bad-syntax",
            Self::MissingValue { .. } => "missing-value",
            Self::BadValue { .. } => "bad-value",
            Self::ServiceName { .. } => "service-name",
            Self::IdName { .. } => "id-name",
            Self::NoUid { .. } => "no-uid",
            Self::OnlyRoot { .. } => "only-root",
            Self::TooManyIds { .. } => "too-many-ids",
            Self::Tproxy { .. } => "tproxy",
            Self::NoInterception { .. } => "no-interception",
            Self::ExcludedInterfaces { .. } => "excluded-interfaces",
            Self::KubevirtInterfaces { .. } => "kubevirt-interfaces",
            Self::NotAnInjectors { .. } => "not-an-injectors",
            Self::ForeignValidation { .. } => "foreign-validation",
            Self::ValueFrom { .. } => "value-from",
            Self::EnvFrom => "env-from",
            Self::EnvTwice { .. } => "env-twice",
            Self::VariableReference { .. } => "variable-reference",
        }
    }
}

/// `{"reason": …, "message": …}`.
impl Serialize for Leave {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_struct("Leave", 2)?;
        map.serialize_field("reason", self.reason())?;
        map.serialize_field("message", &self.to_string())?;
        map.end()
    }
}
