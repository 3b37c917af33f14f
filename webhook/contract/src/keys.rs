//! Names of labels, annotations and containers: ours, and those of others that Sidestep reads.

/// What the names of our labels and annotations start with.
pub const PREFIX: &str = "sidestep.dev/";

/// Label on a pod that Sidestep accelerates. Agents select pods by it; only the webhook may write it.
pub const ACCELERATED: &str = "sidestep.dev/accelerated";

/// Annotation with the policy in short. For people: the agent parses the container's arguments instead.
pub const POLICY: &str = "sidestep.dev/policy";

/// Annotation with the reason why a pod was left to Istio.
pub const LEFT_ALONE: &str = "sidestep.dev/left-alone";

/// Label or annotation of a pod, else of its namespace: `true` asks for Sidestep, `false` refuses it.
pub const ENABLED: &str = "sidestep.dev/enabled";

/// Annotation of a pod, else label or annotation of its namespace: how far the shortcut reaches, `off`, `pod` or `node`.
/// On an accelerated pod the webhook leaves what is in effect.
pub const SHORTCUT: &str = "sidestep.dev/shortcut";

/// Annotation of a pod, never of a namespace: into which sockets the shortcut delivers, `proxy` or `application`.
pub const SHORTCUT_INTO: &str = "sidestep.dev/shortcut-into";

/// Annotation of a pod, never of a namespace: whether what its programs send past every `connect` may go around the proxy,
/// `refuse` or `allow`.
pub const RAW_SOCKETS: &str = "sidestep.dev/raw-sockets";

/// Label of a node that cannot run Sidestep.
pub const UNSUPPORTED: &str = "sidestep.dev/unsupported";

/// Label of a node that could run Sidestep, and whose agent is missing, not ready for long, or says that it never will be.
pub const WITHOUT_AGENT: &str = "sidestep.dev/without-agent";

/// Label of an agent's pod: which gates the agent reads, as [`gate::LANGUAGE`](crate::gate::LANGUAGE).
pub const READS: &str = "sidestep.dev/reads-gates";

/// Annotation in a standalone agent's Pod file: the pod's network namespace, by its name under `/run/netns` or by an
/// absolute path.
pub const NETNS: &str = "sidestep.dev/netns";

/// Reason of the Event by which an agent says that it never will be ready on its node, as that is.
pub const CANNOT_RUN: &str = "SidestepCannotRun";

/// Label by which kubelet tells its node's operating system.
pub const OS: &str = "kubernetes.io/os";

/// Label by which kubelet tells its node's architecture.
pub const ARCHITECTURE: &str = "kubernetes.io/arch";

/// The init container that programs redirection and stays in the pod as the gate.
pub const ISTIO_INIT: &str = "istio-init";

/// The init container that takes its place where istio-cni programs redirection.
pub const ISTIO_VALIDATION: &str = "istio-validation";

/// The network by which Multus runs istio-cni's plugin, which adds no interface (Istio's `pilot.cni.provider: multus`).
pub const ISTIO_CNI: &str = "istio-cni";

/// The names of what becomes a gate.
pub const INITS: [&str; 2] = [ISTIO_INIT, ISTIO_VALIDATION];

/// The containers that the mesh's injector adds: what those may do is no sign of what the pod does.
pub const OF_THE_MESH: [&str; 4] = [
    ISTIO_INIT,
    ISTIO_VALIDATION,
    "istio-proxy",
    "enable-core-dump",
];

/// First argument of [`ISTIO_INIT`]: the subcommand of Istio's agent binary.
pub const ISTIO_IPTABLES: &str = "istio-iptables";

/// Environment variable of a gate: the `istio-init` that it was made of, as JSON, so that it can be made whole again.
pub const ORIGINAL: &str = "SIDESTEP_ISTIO_INIT";

/// Annotation by which a pod asks Multus for further networks.
pub const MULTUS_NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

/// Annotation by which GKE gives a pod interfaces, as a JSON list of `{"interfaceName", "network"}`.
pub const GKE_INTERFACES: &str = "networking.gke.io/interfaces";

/// Label of a namespace whose pods get a second interface from OVN-Kubernetes, which their traffic uses.
pub const OVN_PRIMARY_NETWORK: &str = "k8s.ovn.org/primary-user-defined-network";

/// Annotation of a mirror pod: the API server's copy of a pod that a kubelet read from a file.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
