//! The flags of `istio-iptables`, as of Istio 1.31.

use crate::Origin;

/// The kind of a flag's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text. Its form is checked when the policy is made.
    Text,
    /// A boolean, which never takes the next word.
    Bool,
    /// A number of 16 bits.
    Number,
    /// A Go duration.
    Duration,
}

/// A row of the table of flags.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The flag.
    pub flag: Flag,
    /// Its long name.
    pub long: &'static str,
    /// Its one-letter name.
    pub short: Option<char>,
    /// The kind of its value.
    pub kind: Kind,
    /// The environment variables that set it, a later one over an earlier one.
    pub env: &'static [&'static str],
    /// Its value if neither argument nor variable sets it.
    pub default: &'static str,
}

/// Defines [`Flag`] and [`TABLE`] together, so that they have the same order.
macro_rules! flags {
    ($($flag:ident, $long:literal, $short:expr, $kind:ident, [$($env:literal),*], $default:literal;)*) => {
        /// Every flag there is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Flag {
            $(#[doc = concat!("`--", $long, "`")] $flag),*
        }

        /// The table of all flags, in the order of [`Flag`].
        pub static TABLE: &[Spec] = &[
            $(Spec {
                flag: Flag::$flag,
                long: $long,
                short: $short,
                kind: Kind::$kind,
                env: &[$($env),*],
                default: $default,
            }),*
        ];
    };
}

flags! {
    EnvoyPort, "envoy-port", Some('p'), Text, [], "15001";
    InboundCapturePort, "inbound-capture-port", Some('z'), Text, ["INBOUND_CAPTURE_PORT"], "15006";
    InboundTunnelPort, "inbound-tunnel-port", Some('e'), Text, ["INBOUND_TUNNEL_PORT"], "15008";
    ProxyUid, "proxy-uid", Some('u'), Text, ["PROXY_UID"], "";
    ProxyGid, "proxy-gid", Some('g'), Text, ["PROXY_GID"], "";
    InterceptionMode, "istio-inbound-interception-mode", Some('m'), Text, ["ISTIO_INBOUND_INTERCEPTION_MODE"], "";
    InboundPorts, "istio-inbound-ports", Some('b'), Text, ["ISTIO_INBOUND_PORTS"], "";
    LocalExcludePorts, "istio-local-exclude-ports", Some('d'), Text, ["ISTIO_LOCAL_EXCLUDE_PORTS"], "";
    ExcludeInterfaces, "istio-exclude-interfaces", Some('c'), Text, ["ISTIO_EXCLUDE_INTERFACES"], "";
    ServiceCidr, "istio-service-cidr", Some('i'), Text, ["ISTIO_SERVICE_CIDR"], "";
    ServiceExcludeCidr, "istio-service-exclude-cidr", Some('x'), Text, ["ISTIO_SERVICE_EXCLUDE_CIDR"], "";
    OutboundPorts, "istio-outbound-ports", Some('q'), Text, ["ISTIO_OUTBOUND_PORTS"], "";
    OutboundPortsExclude, "istio-local-outbound-ports-exclude", Some('o'), Text,
        ["ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"], "";
    KubeVirtInterfaces, "kube-virt-interfaces", Some('k'), Text, ["KUBE_VIRT_INTERFACES"], "";
    TproxyMark, "istio-inbound-tproxy-mark", Some('t'), Text, ["ISTIO_INBOUND_TPROXY_MARK"], "1337";
    TproxyRouteTable, "istio-inbound-tproxy-route-table", Some('r'), Text, ["ISTIO_INBOUND_TPROXY_ROUTE_TABLE"], "133";
    DryRun, "dry-run", Some('n'), Bool, ["DRY_RUN"], "false";
    ProbePort, "iptables-probe-port", None, Number, ["IPTABLES_PROBE_PORT"], "15002";
    ProbeTimeout, "probe-timeout", None, Duration, ["PROBE_TIMEOUT"], "5s";
    SkipRuleApply, "skip-rule-apply", None, Bool, ["SKIP_RULE_APPLY"], "false";
    RunValidation, "run-validation", None, Bool, ["RUN_VALIDATION"], "false";
    RedirectDns, "redirect-dns", None, Bool, ["REDIRECT_DNS", "ISTIO_META_DNS_CAPTURE"], "false";
    DropInvalid, "drop-invalid", None, Bool, ["DROP_INVALID", "INVALID_DROP"], "false";
    DualStack, "dual-stack", None, Bool, ["DUAL_STACK", "ISTIO_DUAL_STACK"], "false";
    CaptureAllDns, "capture-all-dns", None, Bool, ["CAPTURE_ALL_DNS"], "false";
    NetworkNamespace, "network-namespace", None, Text, ["NETWORK_NAMESPACE"], "";
    CniMode, "cni-mode", None, Bool, ["CNI_MODE"], "false";
    Reconcile, "reconcile", None, Bool, ["RECONCILE"], "false";
    CleanupOnly, "cleanup-only", None, Bool, ["CLEANUP_ONLY"], "false";
    ForceApply, "force-apply", None, Bool, ["FORCE_APPLY"], "false";
    NativeNftables, "native-nftables", None, Bool, ["NATIVE_NFTABLES"], "false";
    ForceIptablesBinary, "force-iptables-binary", None, Text, ["FORCE_IPTABLES_BINARY"], "";
    LogTarget, "log_target", None, Text, [], "";
    LogAsJson, "log_as_json", None, Bool, [], "false";
    LogOutputLevel, "log_output_level", None, Text, [], "";
    LogStacktraceLevel, "log_stacktrace_level", None, Text, [], "";
    LogCaller, "log_caller", None, Text, [], "";
    Help, "help", Some('h'), Bool, [], "false";
}

/// Variables without a flag: the groups whose connections are captured.
pub const OWNER_GROUPS: &str = "ISTIO_OUTBOUND_OWNER_GROUPS";
/// The groups whose connections are not.
pub const OWNER_GROUPS_EXCLUDE: &str = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE";
/// The IPv4 destinations that are the application's own.
pub const LOOPBACK_CIDR: &str = "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR";
/// All variables without a flag.
pub const ENV_ONLY: [&str; 3] = [OWNER_GROUPS, OWNER_GROUPS_EXCLUDE, LOOPBACK_CIDR];

impl Flag {
    /// The flag's row of the table.
    pub fn spec(self) -> &'static Spec {
        &TABLE[self as usize]
    }

    /// The flag with this long name.
    pub fn by_long(name: &str) -> Option<Self> {
        let spec = TABLE.iter().find(|spec| spec.long == name)?;
        Some(spec.flag)
    }

    /// The flag with this one-letter name.
    pub fn by_short(name: char) -> Option<Self> {
        let spec = TABLE.iter().find(|spec| spec.short == Some(name))?;
        Some(spec.flag)
    }

    /// This flag, on the command line.
    pub fn given(self) -> Origin {
        let Spec { long, short, .. } = *self.spec();
        Origin::Flag { long, short }
    }

    /// This flag, if it was not given.
    pub fn absent(self) -> Origin {
        let Spec { long, short, .. } = *self.spec();
        Origin::Absent { long, short }
    }
}
