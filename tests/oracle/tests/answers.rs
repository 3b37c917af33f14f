//! What a case answers, with rules that were recorded once: nothing differs, and a planted difference is seen and told.

use std::{fs, net::IpAddr};

use sidestep_kit::{needs, parts};
use sidestep_oracle::{
    attempts::Attempt,
    case::Case,
    compare::{Answer, Difference, answer, describe},
    host::{Host, Kind, State, route},
    istio::Loaded,
    plan::Reason,
    policy::Written,
};
use sidestep_walker::{Packet, Protocol, Way};

const POD: &str = "10.77.0.10";

/// The default policy, with the rules of its fixture after this change, and these calls of an application.
fn case(change: impl Fn(String) -> String, to: &[&str]) -> Case {
    let folder = parts::fixtures().join("client");
    let read = |file| fs::read_to_string(folder.join(file)).expect("a fixture with rules");
    let address = |text: &&str| text.parse::<IpAddr>().expect("an address");
    Case {
        reason: Reason::Alone,
        kind: Kind::V4,
        policy: Written::plain(),
        state: State {
            addresses: ["127.0.0.1", POD, "::1"].iter().map(address).collect(),
            source4: POD.parse().ok(),
            source6: None,
            name_servers: Vec::new(),
        },
        loaded: Loaded::Iptables {
            v4: change(read("iptables.rules")),
            v6: read("ip6tables.rules"),
        },
        attempts: to.iter().map(|to| call(to)).collect(),
    }
}

fn call(to: &str) -> Attempt {
    let to: std::net::SocketAddr = to.parse().expect("an address and a port");
    Attempt {
        to,
        bound: None,
        packet: Packet {
            way: Way::Out {
                uid: 1000,
                gid: 1000,
                loopback: to.ip().is_loopback(),
            },
            protocol: Protocol::Tcp,
            source: POD.parse().expect("an address"),
            destination: to,
        },
    }
}

#[track_caller]
fn compared(case: &Case) -> (Vec<&'static str>, Vec<Difference>) {
    match answer(case).expect("rules of which everything is known") {
        Answer::Compared { rows, differences } => {
            (rows.iter().map(|row| row.name()).collect(), differences)
        }
        other => panic!("not compared: {other:?}"),
    }
}

#[test]
fn the_same_rules_differ_nowhere() {
    let case = case(|rules| rules, &["10.0.0.9:80", "127.0.0.1:80"]);
    let (rows, differences) = compared(&case);
    assert_eq!(rows, ["out-12", "out-4"]);
    assert!(differences.is_empty(), "{differences:?}");
}

#[test]
fn a_planted_difference_is_told_with_the_rule_and_the_row() {
    let planted = |rules: String| rules.replace("--to-ports 15001", "--to-ports 15002");
    let case = case(planted, &["10.0.0.9:80", "127.0.0.1:80"]);
    let (_, differences) = compared(&case);
    let [difference] = &differences[..] else {
        panic!("{differences:?}");
    };
    let told = describe(&case, difference);
    for words in [
        "istio-iptables -p 15001",
        "tcp to 10.0.0.9:80 by uid 1000",
        "redirect to 15002 by ISTIO_REDIRECT 1: -p tcp -j REDIRECT --to-ports 15002",
        "redirect to 15001 by row out-12",
    ] {
        assert!(told.contains(words), "no {words:?} in\n{told}");
    }
}

#[test]
fn what_is_not_known_in_the_rules_is_no_answer() {
    let strange = |rules: String| {
        rules.replace(
            "-p tcp -j REDIRECT",
            "-p tcp -m set --match-set x dst -j REDIRECT",
        )
    };
    let error = answer(&case(strange, &["10.0.0.9:80"])).expect_err("an unknown module");
    assert!(error.to_string().contains("set"), "{error}");
}

#[test]
fn a_policy_that_sidestep_leaves_is_not_compared() {
    let mut case = case(|rules| rules, &["10.0.0.9:80"]);
    case.policy.set("-q", "https");
    let left = answer(&case).expect("rules of which everything is known");
    assert!(
        matches!(&left, Answer::Left(reason) if reason == "service-name"),
        "{left:?}"
    );
}

#[needs(root)]
fn the_kernel_says_where_a_socket_goes() {
    let host = Host::new(Kind::Both);
    let of = |to: &str, bound: Option<&str>| {
        let to = to.parse().expect("an address and a port");
        let bound = bound.map(|it| it.parse().expect("an address"));
        let route = host.namespace().enter(|| route(to, bound))?;
        let (source, destination) = (route.source.to_string(), route.destination.to_string());
        Some((source, destination, route.loopback))
    };
    let is = |source: &str, destination: &str, loopback| {
        Some((source.to_owned(), destination.to_owned(), loopback))
    };
    assert_eq!(of("203.0.113.7:80", None), is(POD, "203.0.113.7", false));
    assert_eq!(
        of("[::ffff:203.0.113.7]:80", None),
        is(POD, "203.0.113.7", false)
    );
    assert_eq!(of("10.77.0.10:80", None), is(POD, POD, true));
    assert_eq!(of("127.0.0.6:80", None), is("127.0.0.1", "127.0.0.6", true));
    assert_eq!(of("0.0.0.0:80", None), is("127.0.0.1", "127.0.0.1", true));
    assert_eq!(of("0.0.0.0:80", Some(POD)), is(POD, POD, true));
    assert_eq!(of("[::]:80", Some("fd77::10")), is("fd77::10", "::1", true));
    assert_eq!(
        of("10.77.0.10:80", Some("127.0.0.6")),
        is("127.0.0.6", POD, true)
    );
    assert_eq!(of("203.0.113.7:80", Some("127.0.0.6")), None);
    assert_eq!(of("[::6]:80", Some("::6")), None, "nobody has ::6 here");
}
