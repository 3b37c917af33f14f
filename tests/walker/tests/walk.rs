//! What the walker answers, beside what is known of Istio's rules; and what it refuses to answer.

use std::{fs, path::Path};

use sidestep_walker::{Arrival, Packet, Protocol, Rules, Way};

const PASS: Arrival = Arrival::Passed;
const OUTBOUND: Arrival = Arrival::Redirected(15001);
const INBOUND: Arrival = Arrival::Redirected(15006);
const DNS: Arrival = Arrival::Redirected(15053);

fn fixture(name: &str) -> Rules {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fixtures")
        .join(name);
    let read = |file| fs::read_to_string(folder.join(file)).expect("a fixture with rules");
    let rules = Rules::of_iptables(&read("iptables.rules"), &read("ip6tables.rules"));
    rules.expect("rules of which everything is known")
}

/// A packet of a socket of `uid` and a group of the same number.
fn out(uid: u32, source: &str, to: &str, loopback: bool) -> Packet {
    Packet {
        way: Way::Out {
            uid,
            gid: uid,
            loopback,
        },
        protocol: Protocol::Tcp,
        source: source.parse().expect("an address"),
        destination: to.parse().expect("an address and a port"),
    }
}

fn into(to: &str) -> Packet {
    Packet {
        way: Way::In,
        ..out(0, "10.78.0.2", to, false)
    }
}

#[track_caller]
fn arrives(rules: &Rules, packet: &Packet, arrival: Arrival, because: &str) {
    let verdict = rules.walk(packet).expect("chains that end");
    assert_eq!(verdict.arrival, arrival, "{packet:?}: {verdict}");
    assert!(
        verdict.to_string().contains(because),
        "{packet:?}: {verdict}"
    );
}

#[test]
fn the_default_rules_are_walked_to_the_rule_that_decides() {
    let rules = fixture("client");
    let pod = "10.77.0.10";
    let to_itself = |uid, to| out(uid, pod, to, true);
    arrives(
        &rules,
        &out(1000, pod, "10.96.0.7:80", false),
        OUTBOUND,
        "ISTIO_REDIRECT 1: ",
    );
    arrives(
        &rules,
        &out(1337, pod, "10.96.0.7:80", false),
        PASS,
        "-m owner --uid-owner 1337 -j RETURN",
    );
    arrives(
        &rules,
        &to_itself(1000, "10.77.0.10:80"),
        PASS,
        "! --uid-owner 1337",
    );
    arrives(
        &rules,
        &to_itself(1337, "10.77.0.10:80"),
        INBOUND,
        "ISTIO_IN_REDIRECT 1: ",
    );
    arrives(
        &rules,
        &to_itself(1337, "10.77.0.10:15008"),
        PASS,
        "--uid-owner 1337 -j RETURN",
    );
    let passthrough = out(1337, "127.0.0.6", "10.77.0.10:80", true);
    arrives(&rules, &passthrough, PASS, "-s 127.0.0.6/32");
    let udp = Packet {
        protocol: Protocol::Udp,
        ..out(1000, pod, "10.96.0.7:80", false)
    };
    arrives(&rules, &udp, PASS, "the end of the chain");
    arrives(
        &rules,
        &into("10.77.0.10:8080"),
        INBOUND,
        "ISTIO_IN_REDIRECT 1: ",
    );
    arrives(&rules, &into("10.77.0.10:15008"), PASS, "--dport 15008");
    // The IPv6 table is empty.
    arrives(
        &rules,
        &out(1000, "fd77::10", "[fd00::1]:80", false),
        PASS,
        "the end of the chain",
    );
}

#[test]
fn dns_is_walked_through_its_chain_and_back() {
    let rules = fixture("dns");
    let query = |to| Packet {
        protocol: Protocol::Udp,
        ..out(1000, "10.77.0.10", to, false)
    };
    arrives(&rules, &query("10.77.0.53:53"), DNS, "ISTIO_OUTPUT_DNS");
    arrives(
        &rules,
        &query("10.77.0.54:53"),
        PASS,
        "the end of the chain",
    );
    let by_tcp = out(1000, "10.77.0.10", "10.77.0.54:53", false);
    arrives(&rules, &by_tcp, OUTBOUND, "ISTIO_REDIRECT 1: ");
}

#[test]
fn of_a_native_table_rules_that_look_into_an_address_are_of_its_family() {
    let listing = |rule: &str| {
        let chain = |name: &str, hook: &str| {
            format!(
                r#"{{"chain": {{"family": "inet", "table": "istio-proxy-nat", "name": "{name}", "handle": 1{hook}}}}}"#
            )
        };
        let hook = r#", "type": "nat", "hook": "output", "prio": -100, "policy": "accept""#;
        let rule = format!(
            r#"{{"rule": {{"family": "inet", "table": "istio-proxy-nat", "chain": "output", "handle": 2, "expr": [{rule}, {{"redirect": {{"port": 15001}}}}]}}}}"#
        );
        format!(r#"{{"nftables": [{}, {rule}]}}"#, chain("output", hook))
    };
    let walk = |rule: &str, to: &str| {
        let rules = Rules::of_nftables(&listing(rule)).expect("nothing unknown");
        let source = if to.starts_with('[') {
            "fd77::10"
        } else {
            "10.77.0.10"
        };
        let verdict = rules.walk(&out(1000, source, to, false));
        verdict.expect("chains that end").arrival
    };
    let not = r#"{"match": {"op": "!=", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": "127.0.0.1"}}"#;
    assert_eq!(walk(not, "10.0.0.1:80"), OUTBOUND);
    assert_eq!(walk(not, "127.0.0.1:80"), PASS);
    assert_eq!(walk(not, "[fd00::1]:80"), PASS);
    let any = r#"{"counter": {"packets": 0, "bytes": 0}}"#;
    assert_eq!(walk(any, "[fd00::1]:80"), OUTBOUND);
    let ports = r#"{"match": {"op": "!=", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": {"set": [53, {"range": [90, 100]}]}}}"#;
    for (to, arrival) in [
        ("10.0.0.1:53", PASS),
        ("10.0.0.1:95", PASS),
        ("10.0.0.1:101", OUTBOUND),
    ] {
        assert_eq!(walk(ports, to), arrival, "{to}");
    }
    let unknown = [
        (
            r#"{"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": 1}}"#,
            "mark",
        ),
        (
            r#"{"match": {"op": "in", "left": {"meta": {"key": "skuid"}}, "right": 1}}"#,
            "in",
        ),
        (
            r#"{"match": {"op": "==", "left": {"fib": {"result": "type"}}, "right": "local"}}"#,
            "fib",
        ),
        (r#"{"log": null}"#, "log"),
        (r#"{"goto": {"target": "x"}}"#, "goto"),
        (
            r#"{"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "sport"}}, "right": 1}}"#,
            "sport",
        ),
    ];
    for (statement, word) in unknown {
        let error = Rules::of_nftables(&listing(statement)).expect_err(word);
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn what_is_not_known_is_an_error_that_names_it() {
    let save =
        |rule: &str| format!("*nat\n:OUTPUT ACCEPT [0:0]\n:ISTIO_OUTPUT - [0:0]\n{rule}\nCOMMIT\n");
    for (rule, word) in [
        ("-A OUTPUT -m set --match-set x dst -j RETURN", "set"),
        ("-A OUTPUT -p sctp -j RETURN", "sctp"),
        ("-A OUTPUT -o eth0 -j RETURN", "eth0"),
        ("-A OUTPUT -p tcp -m tcp --sport 80 -j RETURN", "--sport"),
        (
            "-A OUTPUT -p tcp -j REDIRECT --to-ports 80 --random",
            "--random",
        ),
        ("-A OUTPUT -j DNAT --to-destination 10.0.0.1", "DNAT"),
        ("-A OUTPUT -d 10.0.0.0/33 -j RETURN", "10.0.0.0/33"),
        ("-A OUTPUT -p tcp -m tcp --dport 80:x -j RETURN", "80:x"),
        ("-A OUTPUT -p tcp", "the end"),
        ("-A NOWHERE -j RETURN", "NOWHERE"),
        ("-I OUTPUT -j RETURN", "-I"),
        (":OTHER DROP [0:0]", "DROP"),
    ] {
        let error = Rules::of_iptables(&save(rule), "").expect_err(rule);
        assert!(error.to_string().contains(word), "{rule}: {error}");
    }
    let packet = out(1000, "10.0.0.1", "10.0.0.2:80", false);
    for (rule, word) in [
        ("-A OUTPUT -j ISTIO_NOWHERE", "ISTIO_NOWHERE"),
        (
            "-A OUTPUT -j ISTIO_OUTPUT\n-A ISTIO_OUTPUT -j ISTIO_OUTPUT",
            "circle",
        ),
    ] {
        let rules = Rules::of_iptables(&save(rule), "").expect("words that are known");
        let error = rules.walk(&packet).expect_err(rule);
        assert!(error.to_string().contains(word), "{rule}: {error}");
    }
}
