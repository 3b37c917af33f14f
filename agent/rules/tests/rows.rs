//! From the text of a policy to the row that decides: the specification's rows, without a kernel.

mod common;

use std::net::SocketAddr;

use common::{facts, policy, rules};
use sidestep_ebpf_common::Proto::{self, Tcp, Udp};
use sidestep_rules::{Facts, Outgoing, Rules, compile};

/// What Istio's injector writes for a pod without annotations.
const PLAIN: &str = r#"-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -x "" -b * -d 15090,15021,15020"#;

/// Who makes a connection.
#[derive(Clone, Copy, Debug)]
struct Who {
    uid: u32,
    gid: u32,
    bound: Option<&'static str>,
}

const APP: Who = who(1000, 1000);
const PROXY: Who = who(1337, 1337);

const fn who(uid: u32, gid: u32) -> Who {
    Who {
        uid,
        gid,
        bound: None,
    }
}

impl Who {
    const fn from(self, address: &'static str) -> Self {
        Self {
            bound: Some(address),
            ..self
        }
    }
}

fn ipv4() -> Facts {
    facts(&["127.0.0.1", "10.0.0.5", "::1", "fe80::1"], &[])
}

/// As the agent reads it after it has added `::6`.
fn ipv6() -> Facts {
    facts(&["127.0.0.1", "::1", "::6", "fd00::5", "fe80::1"], &[])
}

fn both() -> Facts {
    let addresses = ["127.0.0.1", "10.0.0.5", "::1", "::6", "fd00::5", "fe80::1"];
    facts(&addresses, &[])
}

fn plain(more: &str) -> Rules {
    rules(&policy(&format!("{PLAIN} {more}"), &[]), &ipv4())
}

#[track_caller]
fn out(rules: &Rules, cases: &[(Who, Proto, &str, &str)]) {
    for (who, proto, to, row) in cases {
        let connection = Outgoing {
            proto: *proto,
            to: to.parse().expect("an address and a port"),
            bound: who.bound.map(|a| a.parse().expect("an address")),
            uid: who.uid,
            gid: who.gid,
        };
        let decided = rules.outbound(&connection).name();
        assert_eq!(decided, *row, "{connection:?}");
    }
}

#[track_caller]
fn into(rules: &Rules, cases: &[(&str, &str)]) {
    for (to, row) in cases {
        let address: SocketAddr = to.parse().expect("an address and a port");
        assert_eq!(rules.inbound(address).name(), *row, "{to}");
    }
}

#[test]
fn a_pod_without_annotations() {
    let rules = plain("");
    out(
        &rules,
        &[
            (APP, Tcp, "10.9.9.9:80", "out-12"),
            (APP, Tcp, "[::ffff:10.9.9.9]:80", "out-12"),
            (APP, Udp, "10.9.9.9:80", "out-13"),
            (APP, Udp, "10.9.9.9:53", "out-13"),
            (APP, Tcp, "[2001:db8::9]:80", "out-family"),
            (APP, Tcp, "10.0.0.5:8080", "out-4"),
            (APP, Tcp, "127.0.0.1:8080", "out-4"),
            (APP, Tcp, "127.0.0.2:8080", "out-4"),
            (APP, Tcp, "0.0.0.0:8080", "out-4"),
            (PROXY, Tcp, "10.9.9.9:80", "out-5"),
            (PROXY, Udp, "10.0.0.53:53", "out-5"),
            (PROXY, Tcp, "10.0.0.5:8080", "out-3"),
            (PROXY, Tcp, "127.0.0.2:8080", "out-3"),
            (PROXY, Tcp, "127.0.0.1:8080", "out-5"),
            (PROXY, Tcp, "10.0.0.5:15008", "out-5"),
            (PROXY.from("10.0.0.5"), Tcp, "0.0.0.0:8080", "out-3"),
            (PROXY.from("127.0.0.6"), Tcp, "10.0.0.5:8080", "out-2"),
            (PROXY.from("127.0.0.6"), Tcp, "10.9.9.9:80", "out-5"),
        ],
    );
    into(
        &rules,
        &[
            ("10.0.0.5:8080", "in-all"),
            ("10.0.0.5:15006", "in-all"),
            ("10.0.0.5:15020", "in-excluded"),
            ("10.0.0.5:15090", "in-excluded"),
            ("10.0.0.5:15008", "in-tunnel"),
            ("[fd00::5]:8080", "in-family"),
        ],
    );
}

#[test]
fn an_excluded_outbound_port_passes_for_everybody() {
    out(
        &plain("-o 8080,9000:9100 --redirect-dns --capture-all-dns"),
        &[
            (APP, Tcp, "10.9.9.9:8080", "out-1"),
            (APP, Udp, "10.9.9.9:9050", "out-1"),
            (PROXY, Tcp, "10.0.0.5:9100", "out-1"),
            (APP, Tcp, "10.9.9.9:8999", "out-12"),
            (APP, Tcp, "10.9.9.9:9101", "out-12"),
        ],
    );
}

#[test]
fn destinations_are_chosen_by_network_and_port() {
    let some =
        "-p 15001 -z 15006 -u 1337 -m REDIRECT -b * -i 10.1.9.9/16 -x 10.1.2.3/24 -q 9443,10000:";
    out(
        &rules(&policy(some, &[]), &ipv4()),
        &[
            (APP, Tcp, "10.1.0.1:80", "out-12"),
            (APP, Tcp, "10.1.2.200:80", "out-10"),
            (APP, Tcp, "10.1.2.200:9443", "out-10"),
            (APP, Tcp, "10.2.0.1:9443", "out-11"),
            (APP, Tcp, "10.2.0.1:65535", "out-11"),
            (APP, Tcp, "10.2.0.1:80", "out-13"),
            (APP, Udp, "10.1.0.1:9443", "out-13"),
        ],
    );
    let none = r#"-p 15001 -z 15006 -u 1337 -m REDIRECT -b * -i """#;
    out(
        &rules(&policy(none, &[]), &ipv4()),
        &[(APP, Tcp, "10.1.0.1:80", "out-13")],
    );
}

#[test]
fn a_loopback_prefix_among_the_included_networks_captures_the_pods_own() {
    let loopback = "-p 15001 -z 15006 -u 1337 -m REDIRECT -b * -i 127.0.0.0/8,10.0.0.0/8";
    out(
        &rules(&policy(loopback, &[]), &ipv4()),
        &[
            (APP, Tcp, "10.0.0.5:8080", "out-12"),
            (APP, Tcp, "127.0.0.1:8080", "out-9"),
            (APP, Tcp, "127.0.0.2:8080", "out-12"),
            (who(0, 1337), Tcp, "10.0.0.5:8080", "out-6a"),
            (who(0, 1337), Tcp, "10.0.0.5:15008", "out-6c"),
        ],
    );
    let wider = [("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "127.0.0.0/8")];
    out(
        &rules(&policy(PLAIN, &wider), &ipv4()),
        &[(PROXY, Tcp, "127.0.0.2:8080", "out-5")],
    );
}

#[test]
fn dns_is_captured_to_the_servers_of_the_pod_or_to_all() {
    let servers = facts(&["127.0.0.1", "10.0.0.5"], &["10.0.0.53"]);
    out(
        &rules(&policy(&format!("{PLAIN} --redirect-dns"), &[]), &servers),
        &[
            (APP, Udp, "10.0.0.53:53", "out-8"),
            (APP, Tcp, "10.0.0.53:53", "out-8"),
            (APP, Udp, "10.9.9.9:53", "out-13"),
            (APP, Udp, "10.0.0.53:5353", "out-13"),
            (PROXY, Udp, "10.0.0.53:53", "out-5"),
        ],
    );
    out(
        &plain("--redirect-dns"),
        &[(APP, Udp, "10.0.0.53:53", "out-13")],
    );
    out(
        &plain("--redirect-dns --capture-all-dns"),
        &[
            (APP, Udp, "10.9.9.9:53", "out-8"),
            (APP, Tcp, "127.0.0.1:53", "out-8"),
            (APP, Tcp, "10.0.0.5:8080", "out-4"),
            (APP, Udp, "10.0.0.5:9999", "out-13"),
            (PROXY, Tcp, "10.0.0.5:53", "out-5"),
            (who(0, 1337), Tcp, "10.0.0.5:53", "out-6a"),
        ],
    );
}

#[test]
fn who_the_proxy_is() {
    out(
        &plain(""),
        &[
            (who(0, 1337), Tcp, "10.9.9.9:80", "out-6c"),
            (who(0, 1337), Tcp, "10.0.0.5:80", "out-4"),
        ],
    );
    out(
        &plain("-u 1337,2000 -g 1337,3000"),
        &[
            (who(2000, 0), Tcp, "10.0.0.5:80", "out-4"),
            (who(2000, 0), Tcp, "10.9.9.9:80", "out-5"),
            (who(0, 3000), Tcp, "10.9.9.9:80", "out-6c"),
            (who(1337, 0), Tcp, "10.0.0.5:80", "out-3"),
        ],
    );
}

#[test]
fn groups_are_listed_or_excluded_by_variables() {
    for (name, in_list, others) in [
        ("ISTIO_OUTBOUND_OWNER_GROUPS", "out-12", "out-7"),
        ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "out-7", "out-12"),
    ] {
        out(
            &rules(&policy(PLAIN, &[(name, "202,203")]), &ipv4()),
            &[
                (who(1000, 202), Tcp, "10.9.9.9:80", in_list),
                (who(1000, 203), Tcp, "10.9.9.9:80", in_list),
                (who(1000, 204), Tcp, "10.9.9.9:80", others),
            ],
        );
    }
}

#[test]
fn ipv6_is_captured_where_the_pod_has_it_first_or_is_dual_stack() {
    let excludes = policy(&format!("{PLAIN} -x fd00:1::9/64,10.1.0.0/16"), &[]);
    let only = rules(&excludes, &ipv6());
    out(
        &only,
        &[
            (APP, Tcp, "[2001:db8::9]:80", "out-12"),
            (APP, Tcp, "[fd00:1::1]:80", "out-10"),
            (APP, Tcp, "[fd00:1:0:1::1]:80", "out-12"),
            (APP, Tcp, "[fd00::5]:80", "out-4"),
            (APP, Tcp, "[::]:80", "out-4"),
            (PROXY, Tcp, "[fd00::5]:80", "out-3"),
            (PROXY, Tcp, "[::1]:80", "out-5"),
            (PROXY.from("::6"), Tcp, "[fd00::5]:80", "out-2"),
            (PROXY, Tcp, "[::6]:80", "out-2"),
            (APP, Tcp, "[::6]:80", "out-2"),
            (PROXY.from("fd00::5"), Tcp, "[::6]:80", "out-3"),
            (APP, Tcp, "10.1.2.3:80", "out-10"),
        ],
    );
    into(&only, &[("[fd00::5]:8080", "in-all")]);
    let dual_stack = policy(&format!("{PLAIN} --dual-stack"), &[]);
    let to = (APP, Tcp, "[2001:db8::9]:80", "out-12");
    out(&rules(&dual_stack, &both()), &[to]);
    let to = (APP, Tcp, "[2001:db8::9]:80", "out-family");
    out(&rules(&policy(PLAIN, &[]), &both()), &[to]);
}

/// Their one table is both families'; Istio leaves out what names IPv6 where it takes that for not enabled.
#[test]
fn native_nftables_capture_ipv6_by_what_names_no_family() {
    let natively = |more: &str| {
        let init = format!("-p 15001 -z 15006 -u 1337 -m REDIRECT --native-nftables {more}");
        rules(&policy(&init, &[]), &both())
    };
    let all = natively("-i * -x fd00:1::/64 -b * -d 15020 -o 9999");
    out(
        &all,
        &[
            (APP, Tcp, "[2001:db8::9]:80", "out-12"),
            (APP, Tcp, "[fd00:1::1]:80", "out-12"),
            (APP, Tcp, "[2001:db8::9]:9999", "out-1"),
            (APP, Udp, "[2001:db8::9]:80", "out-13"),
            (APP, Tcp, "[fd00::5]:80", "out-4"),
            (APP, Tcp, "[::1]:80", "out-4"),
            (PROXY, Tcp, "[2001:db8::9]:80", "out-5"),
            (PROXY, Tcp, "[fd00::5]:80", "out-5"),
            (PROXY.from("::6"), Tcp, "[fd00::5]:80", "out-5"),
            (PROXY, Tcp, "10.0.0.5:80", "out-3"),
            (PROXY.from("127.0.0.6"), Tcp, "10.0.0.5:80", "out-2"),
            (APP, Tcp, "127.0.0.1:80", "out-4"),
        ],
    );
    into(
        &all,
        &[
            ("[fd00::5]:8080", "in-all"),
            ("[fd00::5]:15020", "in-excluded"),
        ],
    );
    let some = natively("-i fd00:2::/64,10.9.0.0/16 -q 7000 -b 8080");
    out(
        &some,
        &[
            (APP, Tcp, "[fd00:2::1]:80", "out-13"),
            (APP, Tcp, "[fd00:2::1]:7000", "out-11"),
            (APP, Tcp, "10.9.9.9:80", "out-12"),
        ],
    );
    into(
        &some,
        &[
            ("[fd00::5]:8080", "in-included"),
            ("[fd00::5]:8081", "in-rest"),
        ],
    );
    let dns = natively("-i * -b * --redirect-dns --capture-all-dns");
    out(
        &dns,
        &[
            (APP, Udp, "[2001:db8::53]:53", "out-8"),
            (APP, Tcp, "[::1]:53", "out-8"),
        ],
    );
    let loopback = natively("-i 127.0.0.0/8 -q 7000 -b *");
    out(&loopback, &[(APP, Tcp, "[::1]:7000", "out-11")]);

    let enabled = policy(&format!("{PLAIN} --native-nftables"), &[]);
    out(
        &rules(&enabled, &ipv6()),
        &[
            (PROXY, Tcp, "[fd00::5]:80", "out-3"),
            (PROXY.from("::6"), Tcp, "[fd00::5]:80", "out-2"),
        ],
    );
}

#[test]
fn a_network_of_one_family_holds_no_address_of_the_other() {
    let whole = |net: &str| {
        let init = format!("-p 15001 -z 15006 -u 1337 -m REDIRECT -b * -i {net}");
        rules(&policy(&init, &[]), &ipv6())
    };
    out(
        &whole("::/0"),
        &[
            (APP, Tcp, "[2001:db8::9]:80", "out-12"),
            (APP, Tcp, "10.9.9.9:80", "out-13"),
            (APP, Tcp, "[::ffff:10.9.9.9]:80", "out-13"),
        ],
    );
    out(
        &whole("0.0.0.0/0"),
        &[
            (APP, Tcp, "10.9.9.9:80", "out-12"),
            (APP, Tcp, "[::ffff:10.9.9.9]:80", "out-12"),
            (APP, Tcp, "[2001:db8::9]:80", "out-13"),
        ],
    );
}

#[test]
fn inbound_ports_are_all_but_some_or_some_or_none() {
    let inbound = |ports: &str| {
        let init = format!("-p 15001 -z 15006 -u 1337 -m REDIRECT -i * {ports}");
        rules(&policy(&init, &[]), &ipv4())
    };
    into(
        &inbound("-b 8080,9000:9010 -d 8080"),
        &[
            ("10.0.0.5:8080", "in-included"),
            ("10.0.0.5:9005", "in-included"),
            ("10.0.0.5:9011", "in-rest"),
            ("10.0.0.5:15008", "in-tunnel"),
        ],
    );
    into(&inbound(r#"-b """#), &[("10.0.0.5:8080", "in-none")]);
    into(
        &inbound("-b * -d 8000:8999"),
        &[
            ("10.0.0.5:7999", "in-all"),
            ("10.0.0.5:8000", "in-excluded"),
            ("10.0.0.5:8999", "in-excluded"),
        ],
    );
}

/// Ports that are not next to each other take an entry each.
fn odd_ports(count: u16) -> String {
    let ports: Vec<String> = (0..count).map(|n| (2 * n + 1).to_string()).collect();
    ports.join(",")
}

#[test]
fn a_policy_that_takes_more_than_a_pods_share_has_no_rules() {
    let compiled = |more: &str, facts: &Facts| {
        compile(&policy(&format!("{PLAIN} {more}"), &[]), facts, 1, true).map(drop)
    };
    let error = |more: &str, facts: &Facts| {
        let error = compiled(more, facts).expect_err("too many");
        error.to_string()
    };
    // The inbound ports that are excluded take two entries beside these.
    let fits = format!("-o {}", odd_ports(3838));
    assert_eq!(compiled(&fits, &ipv4()), Ok(()));
    assert_eq!(
        error(&format!("-o {}", odd_ports(3839)), &ipv4()),
        "ports of the policy take 3841 entries, and a pod may have 3840"
    );
    let networks: Vec<String> = (0..3841)
        .map(|n| format!("10.{}.{}.0/24", n / 256, n % 256))
        .collect();
    assert_eq!(
        error(&format!("-x {}", networks.join(",")), &ipv4()),
        "networks of the policy take 3841 entries, and a pod may have 3840"
    );
    let addresses: Vec<String> = (0..257)
        .map(|n| format!("10.0.{}.{}", n / 256, n % 256))
        .collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    assert_eq!(compiled("", &facts(&addresses[..256], &[])), Ok(()));
    assert_eq!(
        error("", &facts(&addresses, &[])),
        "addresses and name servers take 257 entries, and a pod may have 256"
    );
}
