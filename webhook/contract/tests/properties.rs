//! Whatever the policy and however it is spelled, the parser gives it back; whatever the arguments, it does not panic.

#[expect(dead_code, reason = "each test file uses some of it")]
mod common;

use std::fmt::Display;
use std::num::NonZeroU16;

use common::{is_gate, istio_init, make, policy as parse, variable};
use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::core::v1::{Container, EnvVar};
use proptest::collection::vec;
use proptest::prelude::*;
use sidestep_contract::gate::PROBE_TIMEOUT;
use sidestep_contract::istio::flags::{Flag, Kind, TABLE};
use sidestep_contract::{Dns, GroupSet, Groups, Inbound, Include, Policy, PortRange};

fn port() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|port| NonZeroU16::new(port).expect("from 1 on"))
}

fn ports() -> impl Strategy<Value = Vec<PortRange>> {
    let single = port().prop_map(PortRange::single);
    let range = (1..=u16::MAX, 1..=u16::MAX)
        .prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).expect("in order"));
    vec(prop_oneof![single, range], 0..6)
}

fn ids(size: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u32>> {
    vec(0..u32::MAX, size)
}

/// Networks, but none that is loopback only before its host bits are cleared: those are refused.
fn networks() -> impl Strategy<Value = Vec<IpNet>> {
    let v4 =
        (any::<[u8; 4]>(), 0..=32u8).prop_map(|(address, bits)| IpNet::new(address.into(), bits));
    let v6 =
        (any::<[u8; 16]>(), 0..=128u8).prop_map(|(address, bits)| IpNet::new(address.into(), bits));
    let network = prop_oneof![v4, v6].prop_map(|network| network.expect("bits that fit").trunc());
    let kept = network.prop_filter("loopback", |net| !net.addr().is_loopback());
    let loopback = Just("127.0.0.0/8".parse().expect("a network"));
    vec(prop_oneof![9 => kept, 1 => loopback], 0..5)
}

fn policy() -> impl Strategy<Value = Policy> {
    let inbound = prop_oneof![
        ports().prop_map(Inbound::AllExcept),
        ports().prop_map(Inbound::Only)
    ];
    let include = prop_oneof![Just(Include::All), networks().prop_map(Include::Only)];
    let groups = prop_oneof![
        ids(0..5).prop_map(|exclude| Groups {
            include: GroupSet::All,
            exclude
        }),
        ids(0..5).prop_map(|only| Groups {
            include: GroupSet::Only(only),
            exclude: vec![]
        }),
    ];
    let loopback = (any::<[u8; 3]>(), 8..=32u8).prop_map(|([b, c, d], bits)| {
        Ipv4Net::new([127, b, c, d].into(), bits)
            .expect("bits that fit")
            .trunc()
    });
    let dns = prop_oneof![Just(Dns::Off), Just(Dns::ToServers), Just(Dns::All)];
    let first = (port(), port(), port(), port(), ids(1..9), ids(1..9));
    let second = (inbound, include, networks(), ports(), ports());
    let third = (groups, loopback, dns, any::<bool>(), any::<bool>());
    (first, second, third).prop_map(|(first, second, third)| Policy {
        outbound_port: first.0,
        inbound_port: first.1,
        tunnel_port: first.2,
        probe_port: first.3,
        proxy_uids: first.4,
        proxy_gids: first.5,
        inbound: second.0,
        include_cidrs: second.1,
        exclude_cidrs: second.2,
        exclude_outbound_ports: second.3,
        include_outbound_ports: second.4,
        groups: third.0,
        loopback: third.1,
        dns: third.2,
        dual_stack: third.3,
        native_nftables: third.4,
    })
}

fn list(items: &[impl Display]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(",")
}

/// The value of every flag that a policy comes from.
fn values(policy: &Policy) -> Vec<(Flag, String)> {
    let (inbound, excluded) = match &policy.inbound {
        Inbound::AllExcept(ports) => ("*".to_owned(), list(ports)),
        Inbound::Only(ports) => (list(ports), "ignored".to_owned()),
    };
    let include = match &policy.include_cidrs {
        Include::All => "*".to_owned(),
        Include::Only(networks) => list(networks),
    };
    vec![
        (Flag::EnvoyPort, policy.outbound_port.to_string()),
        (Flag::InboundCapturePort, policy.inbound_port.to_string()),
        (Flag::InboundTunnelPort, policy.tunnel_port.to_string()),
        (Flag::ProbePort, policy.probe_port.to_string()),
        (Flag::ProxyUid, list(&policy.proxy_uids)),
        (Flag::ProxyGid, list(&policy.proxy_gids)),
        (Flag::InboundPorts, inbound),
        (Flag::LocalExcludePorts, excluded),
        (Flag::ServiceCidr, include),
        (Flag::ServiceExcludeCidr, list(&policy.exclude_cidrs)),
        (
            Flag::OutboundPortsExclude,
            list(&policy.exclude_outbound_ports),
        ),
        (Flag::OutboundPorts, list(&policy.include_outbound_ports)),
        (Flag::RedirectDns, (policy.dns != Dns::Off).to_string()),
        (Flag::CaptureAllDns, (policy.dns == Dns::All).to_string()),
        (Flag::DualStack, policy.dual_stack.to_string()),
        (Flag::NativeNftables, policy.native_nftables.to_string()),
    ]
}

fn group_variables(policy: &Policy) -> Vec<EnvVar> {
    let (include, exclude) = match &policy.groups {
        Groups {
            include: GroupSet::All,
            exclude,
        } => ("*".to_owned(), list(exclude)),
        Groups {
            include: GroupSet::Only(groups),
            ..
        } => (list(groups), "ignored".to_owned()),
    };
    vec![
        variable("ISTIO_OUTBOUND_OWNER_GROUPS", &include),
        variable("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", &exclude),
        variable(
            "ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR",
            &policy.loopback.to_string(),
        ),
    ]
}

/// One legal spelling of a flag with its value, chosen by a number; `None` where it has to be a variable.
fn spelled(flag: Flag, value: &str, choice: usize) -> Option<Vec<String>> {
    let spec = flag.spec();
    let long = format!("--{}", spec.long);
    let short = spec.short.map(|short| format!("-{short}"));
    let mut spellings = vec![vec![format!("{long}={value}")]];
    if spec.kind == Kind::Bool {
        if value == "true" {
            spellings.push(vec![long]);
        }
    } else {
        spellings.push(vec![long, value.to_owned()]);
        spellings.extend(short.map(|short| vec![short, value.to_owned()]));
    }
    if let (Some(short), false) = (spec.short, value.is_empty()) {
        spellings.push(vec![format!("-{short}={value}")]);
        spellings.push(vec![format!("-{short}{value}")]);
    }
    let count = spellings.len() + usize::from(!spec.env.is_empty());
    spellings.into_iter().nth(choice % count)
}

/// A container that says what `policy` says, in the spellings and the order that `choices` gives.
fn container(policy: &Policy, choices: &[usize]) -> Container {
    let (mut words, mut env) = (Vec::new(), group_variables(policy));
    let mut values = values(policy);
    let start = choices[0] % values.len();
    values.rotate_left(start);
    for ((flag, value), choice) in values.into_iter().zip(choices) {
        let names = flag.spec().env;
        if let Some(spelling) = spelled(flag, &value, *choice) {
            // What loses against the command line: an earlier repetition, and any variable.
            let decoy = ["1", "false"][usize::from(flag.spec().kind == Kind::Bool)];
            words.extend((choice % 7 == 0).then(|| format!("--{}={decoy}", flag.spec().long)));
            env.extend(names.first().map(|name| variable(name, decoy)));
            words.extend(spelling);
        } else {
            let name = names[choice % names.len()];
            env.push(variable(name, &value));
        }
        words.extend((choice % 5 == 0).then(|| "word".to_owned()));
    }
    words.extend(choices[1].is_multiple_of(4).then(|| "--".to_owned()));
    let args = std::iter::once("istio-iptables".to_owned()).chain(words);
    istio_init(args.collect(), env)
}

/// Words that are nearly arguments.
fn word() -> impl Strategy<Value = String> {
    let name = prop::sample::select(TABLE).prop_map(|spec| format!("--{}", spec.long));
    let short =
        prop::sample::select(TABLE).prop_map(|spec| format!("-{}", spec.short.unwrap_or('n')));
    let value = prop::sample::select(vec![
        "",
        "*",
        "=",
        "=true",
        "0",
        "15001",
        "1,2",
        "10.0.0.0/8",
        "::1/64",
        ":",
        "é",
    ]);
    let joined = (prop_oneof![name.clone(), short.clone()], value)
        .prop_map(|(flag, value)| format!("{flag}={value}"));
    prop_oneof![
        name,
        short,
        value_word(),
        joined,
        Just("--".to_owned()),
        any::<String>()
    ]
}

fn value_word() -> impl Strategy<Value = String> {
    proptest::string::string_regex("-?[a-zA-Z0-9,:./*=é]{0,12}").expect("a pattern")
}

proptest! {
    #[test]
    fn every_spelling_of_a_policy_parses_back_to_it(policy in policy(), choices in vec(any::<usize>(), 16)) {
        let container = container(&policy, &choices);
        prop_assert_eq!(parse(&container), Ok(policy), "{:?}", container);
    }

    #[test]
    fn the_gate_gives_back_the_policy(policy in policy(), choices in vec(any::<usize>(), 16)) {
        let container = container(&policy, &choices);
        prop_assert!(!is_gate(&container));
        prop_assume!(policy.proxy_uids.iter().any(|uid| *uid != 0));
        let gate = make(&container, PROBE_TIMEOUT).expect("an id that is not root's");
        prop_assert!(is_gate(&gate), "{:?}", gate.args);
        prop_assert_eq!(parse(&gate), Ok(policy));
    }

    #[test]
    fn no_arguments_make_the_parser_panic(words in vec(word(), 0..8), value in any::<String>()) {
        let args: Vec<String> = std::iter::once("istio-iptables".to_owned()).chain(words).collect();
        let env = TABLE.iter().flat_map(|spec| spec.env).map(|name| variable(name, &value));
        let container = istio_init(args, env.collect());
        let parsed = parse(&container);
        if let Err(leave) = &parsed {
            prop_assert!(!leave.to_string().is_empty());
        }
        if let Ok(gate) = make(&container, PROBE_TIMEOUT) {
            prop_assert_eq!(parse(&gate), parsed);
        }
    }

    #[test]
    fn no_text_makes_the_file_reader_panic(text in any::<String>()) {
        let _ = sidestep_contract::file::pods_from_str(&text);
    }
}
