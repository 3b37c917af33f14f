//! The parser against a table written from Istio's flags: every flag, by every name that it has.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use std::num::NonZeroU16;

use common::parse;
use sidestep_contract::istio::flags::TABLE;
use sidestep_contract::{Dns, GroupSet, Inbound, Include, Leave, Policy, PortRange};

/// What a flag does to the policy of `-u 1337 -b *`.
enum Does {
    Changes(fn(&mut Policy)),
    Nothing,
    Leaves(&'static str),
}
use Does::{Changes, Leaves, Nothing};

struct Row {
    long: &'static str,
    short: &'static str,
    env: &'static [&'static str],
    value: &'static str,
    does: Does,
}

/// One row a line: long name, short name, variables, value, what it does.
macro_rules! rows {
    ($($long:literal $short:literal [$($env:literal)*] $value:literal => $does:expr;)*) => {
        &[$(Row { long: $long, short: $short, env: &[$($env),*], value: $value, does: $does }),*]
    };
}

const ROWS: &[Row] = rows! {
    "--envoy-port" "-p" [] "15101" => Changes(|p| p.outbound_port = port(15101));
    "--inbound-capture-port" "-z" ["INBOUND_CAPTURE_PORT"] "15106" => Changes(|p| p.inbound_port = port(15106));
    "--inbound-tunnel-port" "-e" ["INBOUND_TUNNEL_PORT"] "15108" => Changes(|p| p.tunnel_port = port(15108));
    "--proxy-uid" "-u" ["PROXY_UID"] "1000,0" =>
        Changes(|p| (p.proxy_uids, p.proxy_gids) = (vec![1000, 0], vec![1000, 0]));
    "--proxy-gid" "-g" ["PROXY_GID"] "1001" => Changes(|p| p.proxy_gids = vec![1001]);
    "--istio-inbound-interception-mode" "-m" ["ISTIO_INBOUND_INTERCEPTION_MODE"] "REDIRECT" => Nothing;
    "--istio-inbound-interception-mode" "-m" ["ISTIO_INBOUND_INTERCEPTION_MODE"] "TPROXY" => Leaves("tproxy");
    "--istio-inbound-interception-mode" "-m" ["ISTIO_INBOUND_INTERCEPTION_MODE"] "NONE" => Leaves("no-interception");
    "--istio-inbound-interception-mode" "-m" ["ISTIO_INBOUND_INTERCEPTION_MODE"] "redirect" => Leaves("bad-value");
    "--istio-inbound-ports" "-b" ["ISTIO_INBOUND_PORTS"] "80,8000:9000" =>
        Changes(|p| p.inbound = Inbound::Only(vec![range(80, 80), range(8000, 9000)]));
    "--istio-inbound-ports" "-b" ["ISTIO_INBOUND_PORTS"] "" => Changes(|p| p.inbound = Inbound::Only(vec![]));
    "--istio-inbound-ports" "-b" ["ISTIO_INBOUND_PORTS"] "*,80" => Leaves("bad-value");
    "--istio-local-exclude-ports" "-d" ["ISTIO_LOCAL_EXCLUDE_PORTS"] ",15090,,15021," =>
        Changes(|p| p.inbound = Inbound::AllExcept(vec![range(15090, 15090), range(15021, 15021)]));
    "--istio-exclude-interfaces" "-c" ["ISTIO_EXCLUDE_INTERFACES"] "eth1" => Leaves("excluded-interfaces");
    "--istio-exclude-interfaces" "-c" ["ISTIO_EXCLUDE_INTERFACES"] "," => Nothing;
    "--istio-service-cidr" "-i" ["ISTIO_SERVICE_CIDR"] "*" => Changes(|p| p.include_cidrs = Include::All);
    "--istio-service-cidr" "-i" ["ISTIO_SERVICE_CIDR"] "10.96.0.1/24,fd00::1/64" =>
        Changes(|p| p.include_cidrs = Include::Only(vec![net("10.96.0.0/24"), net("fd00::/64")]));
    "--istio-service-cidr" "-i" ["ISTIO_SERVICE_CIDR"] "10.96.0.1" => Leaves("bad-value");
    "--istio-service-cidr" "-i" ["ISTIO_SERVICE_CIDR"] "127.0.0.1/1" => Leaves("bad-value");
    "--istio-service-exclude-cidr" "-x" ["ISTIO_SERVICE_EXCLUDE_CIDR"] "10.0.0.9/8" =>
        Changes(|p| p.exclude_cidrs = vec![net("10.0.0.0/8")]);
    "--istio-service-exclude-cidr" "-x" ["ISTIO_SERVICE_EXCLUDE_CIDR"] "*" => Leaves("bad-value");
    "--istio-outbound-ports" "-q" ["ISTIO_OUTBOUND_PORTS"] "8000:,:99" =>
        Changes(|p| p.include_outbound_ports = vec![range(8000, 65535), range(1, 99)]);
    "--istio-outbound-ports" "-q" ["ISTIO_OUTBOUND_PORTS"] "http" => Leaves("service-name");
    "--istio-outbound-ports" "-q" ["ISTIO_OUTBOUND_PORTS"] "9000:8000" => Leaves("bad-value");
    "--istio-local-outbound-ports-exclude" "-o" ["ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"] "3306" =>
        Changes(|p| p.exclude_outbound_ports = vec![range(3306, 3306)]);
    "--istio-local-outbound-ports-exclude" "-o" ["ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"] " 80, 90:99\t," =>
        Changes(|p| p.exclude_outbound_ports = vec![range(80, 80), range(90, 99)]);
    "--istio-local-outbound-ports-exclude" "-o" ["ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"] "80, " => Leaves("bad-value");
    "--istio-local-outbound-ports-exclude" "-o" ["ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"] "8 0" => Leaves("bad-value");
    "--istio-local-outbound-ports-exclude" "-o" ["ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"] "0" => Leaves("bad-value");
    "--kube-virt-interfaces" "-k" ["KUBE_VIRT_INTERFACES"] "net1" => Leaves("kubevirt-interfaces");
    "--istio-inbound-tproxy-mark" "-t" ["ISTIO_INBOUND_TPROXY_MARK"] "7" => Nothing;
    "--istio-inbound-tproxy-route-table" "-r" ["ISTIO_INBOUND_TPROXY_ROUTE_TABLE"] "7" => Nothing;
    "--dry-run" "-n" ["DRY_RUN"] "true" => Leaves("not-an-injectors");
    "--dry-run" "-n" ["DRY_RUN"] "false" => Nothing;
    "--iptables-probe-port" "" ["IPTABLES_PROBE_PORT"] "15003" => Changes(|p| p.probe_port = port(15003));
    "--iptables-probe-port" "" ["IPTABLES_PROBE_PORT"] "65536" => Leaves("bad-value");
    "--probe-timeout" "" ["PROBE_TIMEOUT"] "1m30.5s" => Nothing;
    "--skip-rule-apply" "" ["SKIP_RULE_APPLY"] "true" => Leaves("foreign-validation");
    "--run-validation" "" ["RUN_VALIDATION"] "true" => Leaves("foreign-validation");
    "--redirect-dns" "" ["REDIRECT_DNS" "ISTIO_META_DNS_CAPTURE"] "true" => Changes(|p| p.dns = Dns::ToServers);
    "--capture-all-dns" "" ["CAPTURE_ALL_DNS"] "true" => Nothing;
    "--drop-invalid" "" ["DROP_INVALID" "INVALID_DROP"] "1" => Nothing;
    "--dual-stack" "" ["DUAL_STACK" "ISTIO_DUAL_STACK"] "T" => Changes(|p| p.dual_stack = true);
    "--network-namespace" "" ["NETWORK_NAMESPACE"] "/proc/7/ns/net" => Leaves("not-an-injectors");
    "--network-namespace" "" ["NETWORK_NAMESPACE"] "" => Nothing;
    "--cni-mode" "" ["CNI_MODE"] "true" => Leaves("not-an-injectors");
    "--cleanup-only" "" ["CLEANUP_ONLY"] "true" => Leaves("not-an-injectors");
    "--reconcile" "" ["RECONCILE"] "true" => Nothing;
    "--force-apply" "" ["FORCE_APPLY"] "true" => Nothing;
    "--native-nftables" "" ["NATIVE_NFTABLES"] "true" => Changes(|p| p.native_nftables = true);
    "--force-iptables-binary" "" ["FORCE_IPTABLES_BINARY"] "nft" => Nothing;
    "--force-iptables-binary" "" ["FORCE_IPTABLES_BINARY"] "ebtables" => Leaves("bad-value");
    "--log_output_level" "" [] "default:debug" => Nothing;
    "--log_as_json" "" [] "true" => Nothing;
    "--log_target" "" [] "stderr" => Nothing;
    "--log_caller" "" [] "all" => Nothing;
    "--log_stacktrace_level" "" [] "default:none" => Nothing;
    "--help" "-h" [] "true" => Leaves("not-an-injectors");
    "" "" ["ISTIO_OUTBOUND_OWNER_GROUPS"] "5,6" => Changes(|p| p.groups.include = GroupSet::Only(vec![5, 6]));
    "" "" ["ISTIO_OUTBOUND_OWNER_GROUPS"] "java" => Leaves("id-name");
    "" "" ["ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"] "7" => Changes(|p| p.groups.exclude = vec![7]);
    "" "" ["ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR"] "127.1.2.3/8" =>
        Changes(|p| p.loopback = "127.0.0.0/8".parse().expect("a network"));
    "" "" ["ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR"] "127.0.0.0/7" => Leaves("bad-value");
    "" "" ["ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR"] "10.0.0.0/8" => Leaves("bad-value");
};

const BOOLEANS: &[&str] = &[
    "--dry-run",
    "--skip-rule-apply",
    "--run-validation",
    "--redirect-dns",
    "--capture-all-dns",
    "--drop-invalid",
    "--dual-stack",
    "--cni-mode",
    "--cleanup-only",
    "--reconcile",
    "--force-apply",
    "--native-nftables",
    "--log_as_json",
    "--help",
];

/// What every row is added to; each of them gives way where the row is about it.
const BASE: &[(&str, &str)] = &[("--proxy-uid", "1337"), ("--istio-inbound-ports", "*")];

fn base_args(row: &Row) -> Vec<&'static str> {
    let others = BASE.iter().filter(|(flag, _)| *flag != row.long);
    others.flat_map(|(flag, value)| [*flag, *value]).collect()
}

fn expect(row: &Row, spelling: &str, found: Result<Policy, Leave>) {
    let base = parse(&["-u", "1337", "-b", "*"], &[]).expect("the base is a policy");
    let found = found.map_err(|leave| leave.reason());
    let expected = match row.does {
        Nothing => Ok(base),
        Changes(change) => {
            let mut changed = base;
            change(&mut changed);
            Ok(changed)
        }
        Leaves(reason) => Err(reason),
    };
    assert_eq!(found, expected, "{spelling}");
}

#[test]
fn every_flag_is_read_by_its_long_name() {
    for row in ROWS.iter().filter(|row| !row.long.is_empty()) {
        let joined = format!("{}={}", row.long, row.value);
        let args = [base_args(row), vec![&joined]].concat();
        expect(row, &joined, parse(&args, &[]));
        if !BOOLEANS.contains(&row.long) {
            let args = [base_args(row), vec![row.long, row.value]].concat();
            expect(
                row,
                &format!("{} {}", row.long, row.value),
                parse(&args, &[]),
            );
        } else if row.value == "true" {
            let args = [base_args(row), vec![row.long]].concat();
            expect(row, row.long, parse(&args, &[]));
        }
    }
}

#[test]
fn every_flag_is_read_by_its_short_name() {
    for row in ROWS.iter().filter(|row| !row.short.is_empty()) {
        let mut spellings = Vec::new();
        if !row.value.is_empty() {
            spellings.push(vec![format!("{}={}", row.short, row.value)]);
        }
        if !BOOLEANS.contains(&row.long) {
            spellings.push(vec![row.short.to_owned(), row.value.to_owned()]);
            if !row.value.is_empty() {
                spellings.push(vec![format!("{}{}", row.short, row.value)]);
            }
        }
        for spelling in spellings {
            let spelling: Vec<&str> = spelling.iter().map(String::as_str).collect();
            let args = [base_args(row), spelling.clone()].concat();
            expect(row, &spelling.join(" "), parse(&args, &[]));
        }
    }
}

#[test]
fn every_flag_is_read_from_its_variables() {
    for row in ROWS {
        for name in row.env {
            let found = parse(&base_args(row), &[(name, row.value)]);
            expect(row, &format!("{name}={}", row.value), found);
        }
    }
}

#[test]
fn the_table_here_has_every_flag_of_the_parsers() {
    for spec in TABLE {
        let long = format!("--{}", spec.long);
        let row = ROWS.iter().find(|row| row.long == long);
        let row = row.unwrap_or_else(|| panic!("{long} has no row"));
        assert_eq!(
            row.short
                .strip_prefix('-')
                .and_then(|short| short.chars().next()),
            spec.short,
            "{long}"
        );
        assert_eq!(row.env, spec.env, "{long}");
    }
}

#[test]
fn only_the_envoy_port_has_no_variable() {
    let policy = parse(
        &["-u", "1337"],
        &[("ENVOY_PORT", "1"), ("LOG_AS_JSON", "x")],
    );
    let policy = policy.expect("variables that Istio does not read are not looked at");
    assert_eq!(policy.outbound_port, port(15001));
}

#[test]
fn defaults_are_istios() {
    let policy = parse(&["-u", "1337"], &[]).expect("only the user id has no default");
    assert_eq!(policy.outbound_port, port(15001));
    assert_eq!(policy.inbound_port, port(15006));
    assert_eq!(policy.tunnel_port, port(15008));
    assert_eq!(policy.probe_port, port(15002));
    assert_eq!(policy.proxy_gids, [1337]);
    assert_eq!(policy.inbound, Inbound::Only(vec![]));
    assert_eq!(policy.include_cidrs, Include::Only(vec![]));
    assert_eq!(policy.groups.include, GroupSet::All);
    assert_eq!(policy.loopback.to_string(), "127.0.0.1/32");
    assert_eq!(policy.dns, Dns::Off);
    assert!(!policy.dual_stack);
}

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("not zero")
}

fn range(first: u16, last: u16) -> PortRange {
    PortRange::new(first, last).expect("a range")
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().expect("a network")
}
