//! Every kind of caller calls every kind of destination, under each fixture's rules and under Sidestep: the lists of what
//! happened must be equal.

use std::{collections::BTreeMap, time::Duration};

use sidestep_kit::{
    actor::{Actor, Errno, Family, Identity, Kind, Seen, Socket},
    needs,
    net::{Namespace, OUTSIDE_V4, OUTSIDE_V6},
    redirect::{Node, Pod, Redirect},
};

use crate::{POD, unmapped};

const POD6: &str = "fd77::10";
const NEIGHBOUR: [&str; 5] = [
    "10.77.9.1",
    "10.77.8.77",
    "10.77.0.53",
    "10.77.0.54",
    "fd77::53",
];
/// Ports that some fixture treats in its own way, and some that none does.
const PORTS: [u16; 8] = [53, 80, 5432, 9443, 15001, 15006, 15008, 15020];
const INBOUND: [u16; 10] = [
    53, 4444, 8080, 8081, 9000, 15001, 15006, 15008, 15020, 15090,
];

macro_rules! fixtures {
    ($($name:ident: $fixture:literal, $addresses:expr, $proxy:expr;)*) => {
        $(#[needs(root, "iptables-nft-restore", "ip6tables-nft-restore")]
        fn $name() {
            compare($fixture, &$addresses, &$proxy);
        })*
    };
}

fixtures! {
    the_default_policy: "client", [POD], Identity::proxy();
    excluded_ports_and_ranges: "exclude", [POD], Identity::proxy();
    excluded_ports_with_blanks: "exclude-wide", [POD], Identity::proxy();
    excluded_ranges_of_ports: "port-ranges", [POD], Identity::proxy();
    lists_of_the_whole_installation: "port-ranges-installed", [POD], Identity::proxy();
    an_excluded_port_of_captured_dns: "exclude-dns-port", [POD], Identity::proxy();
    only_included_ports: "include-outbound-ports", [POD], Identity::proxy();
    nothing_on_the_way_out: "include-outbound-ports-none", [POD], Identity::proxy();
    only_included_inbound_ports: "include-inbound-ports", [POD], Identity::proxy();
    only_ipv6_networks: "include-ipv6", [POD, POD6], Identity::proxy();
    wildcards_and_what_is_taken_from_them: "include-wildcards", [POD], Identity::proxy();
    another_tunnel_port: "tunnel", [POD], Identity::proxy();
    further_groups_of_the_proxy: "environment", [POD], Identity::proxy();
    included_ports_and_ranges: "include", [POD], Identity::proxy();
    no_inbound_ports: "include-ports-none", [POD], Identity::proxy();
    dns_of_listed_servers: "dns", [POD], Identity::proxy();
    dns_of_all_servers: "dns-all", [POD], Identity::proxy();
    an_included_loopback_range: "loopback", [POD], Identity::proxy();
    another_loopback_range: "loopback-cidr", [POD], Identity::proxy();
    a_proxy_of_another_user: "other-uid", [POD], Identity::new(2102, 2102);
    a_proxy_as_root: "uid0", [POD], Identity::new(0, 1337);
    captured_groups: "owner-groups", [POD], Identity::proxy();
    excluded_groups: "owner-groups-exclude", [POD], Identity::proxy();
    no_groups: "owner-groups-none", [POD], Identity::proxy();
    both_families_captured: "dual-stack", [POD, POD6], Identity::proxy();
    both_families_and_one_captured: "ipv4-first", [POD, POD6], Identity::proxy();
    only_ipv6: "ipv6", [POD6], Identity::proxy();
}

fn compare(fixture: &str, addresses: &[&str], proxy: &Identity) {
    let [oracle, ours] = [Redirect::Iptables, Redirect::Sidestep]
        .map(|redirect| World::new(redirect, fixture, addresses, proxy).outcomes());
    assert!(oracle.len() > 100, "{} calls", oracle.len());
    let differences: Vec<_> = oracle
        .iter()
        .filter(|(call, outcome)| ours.get(*call) != Some(outcome))
        .map(|(call, outcome)| {
            format!(
                "{call}\n    iptables: {outcome}\n    sidestep: {}",
                ours[call]
            )
        })
        .collect();
    let (count, all) = (differences.len(), oracle.len());
    assert!(
        differences.is_empty(),
        "{count} of {all} calls differ:\n{}",
        differences.join("\n")
    );
}

/// A pod in which everything listens, a neighbour and an outside host that do too.
struct World {
    _sockets: Vec<Socket>,
    _proxy: sidestep_kit::redirect::Proxy,
    _neighbour: Namespace,
    outside: Actor,
    pod: Pod,
    v4: bool,
    v6: bool,
    // Last: it takes the pod's file away.
    _node: Node,
}

impl World {
    fn new(redirect: Redirect, fixture: &str, addresses: &[&str], proxy: &Identity) -> Self {
        let node = Node::new(redirect);
        let neighbour = node.network().host("neighbour", &NEIGHBOUR);
        let (beside, outside) = (node.actor_in(&neighbour), node.outside());
        let pod = node.pod(fixture, addresses);
        let proxy = pod.proxy_as(proxy);
        node.wait_active(&pod);

        let app = pod.app();
        let free = |port: &&u16| ![15001, 15006].contains(*port);
        let mut sockets = Vec::new();
        for port in INBOUND.iter().filter(free) {
            sockets.push(app.serve("app", Kind::Tcp, &format!("[::]:{port}")));
        }
        for port in PORTS {
            sockets.push(beside.serve("neighbour", Kind::Tcp, &format!("[::]:{port}")));
            sockets.push(outside.serve("outside", Kind::Tcp, &format!("[::]:{port}")));
        }
        for address in NEIGHBOUR {
            sockets.push(beside.serve("neighbour", Kind::Udp, &with_port(address, 53)));
        }
        Self {
            v4: addresses.contains(&POD),
            v6: addresses.contains(&POD6),
            _sockets: sockets,
            _proxy: proxy,
            _neighbour: neighbour,
            outside,
            pod,
            _node: node,
        }
    }

    fn outcomes(&self) -> BTreeMap<String, String> {
        let mut outcomes = BTreeMap::new();
        for identity in identities() {
            let Identity { uids, gids, .. } = &identity;
            let who = format!("{}/{}:{}/{}", uids.0, uids.1, gids.0, gids.1);
            let actor = self.pod.actor(&identity);
            for (destination, near) in self.destinations() {
                let sources: &[_] = if near {
                    &[None, Some("127.0.0.6:0"), Some("[::6]:0"), Some("own")]
                } else {
                    &[None, Some("127.0.0.6:0")]
                };
                for source in sources {
                    let call = format!("{who} from {source:?} to {destination}");
                    let outcome = call_from(&actor, Kind::Tcp, *source, &destination);
                    outcomes.extend(outcome.map(|outcome| (call, outcome)));
                }
                let outcome = call_from(&actor, Kind::Mptcp, None, &destination);
                let call = format!("{who} with MPTCP to {destination}");
                outcomes.extend(outcome.map(|outcome| (call, outcome)));
            }
            for server in NEIGHBOUR.iter().filter(|server| self.speaks(server)) {
                let destination = with_port(server, 53);
                let call = format!("{who} asks {destination}");
                outcomes.insert(call, ask(&actor, &destination));
            }
        }
        for target in [POD, POD6].iter().filter(|target| self.speaks(target)) {
            for port in INBOUND {
                let destination = with_port(target, port);
                let outcome = describe(self.outside.call(&destination));
                outcomes.insert(format!("outside to {destination}"), outcome);
            }
        }
        outcomes
    }

    fn speaks(&self, address: &str) -> bool {
        if address.contains(':') {
            self.v6
        } else {
            self.v4
        }
    }

    /// Each with whether it is in the pod itself.
    fn destinations(&self) -> Vec<(String, bool)> {
        let mut destinations = Vec::new();
        let far = [OUTSIDE_V4, OUTSIDE_V6].into_iter().chain(NEIGHBOUR);
        for address in far.filter(|address| self.speaks(address)) {
            destinations.extend(PORTS.map(|port| (with_port(address, port), false)));
            if !address.contains(':') {
                destinations.push((with_port(&format!("::ffff:{address}"), 80), false));
            }
        }
        let near = [
            POD,
            POD6,
            "127.0.0.1",
            "127.0.0.2",
            "127.9.9.9",
            "0.0.0.0",
            "::1",
            "::",
        ];
        for address in near.into_iter().filter(|address| self.speaks(address)) {
            destinations
                .extend([53, 4000, 8080, 15008].map(|port| (with_port(address, port), true)));
        }
        destinations
    }
}

/// One call; nothing where such a call makes no sense.
fn call_from(actor: &Actor, kind: Kind, source: Option<&str>, destination: &str) -> Option<String> {
    let v6 = destination.starts_with('[');
    let own = with_port(if v6 { POD6 } else { POD }, 0);
    let source = match source {
        Some("own") => Some(own.as_str()),
        Some(source) if source.starts_with('[') != v6 => return None,
        other => other,
    };
    let family = if v6 { Family::V6 } else { Family::V4 };
    let socket = actor.socket(family, kind).expect("a socket");
    if let Some(source) = source {
        // A pod whose IPv6 is not captured has no ::6.
        socket.bind(source).ok()?;
    }
    let connected = socket.connect_within(destination, Duration::from_millis(300));
    Some(describe(connected.and_then(|()| socket.seen())))
}

fn identities() -> Vec<Identity> {
    vec![
        Identity::app(),
        Identity::new(0, 0),
        Identity::proxy(),
        Identity::new(1337, 1000),
        Identity::new(0, 1337),
        Identity::new(2102, 2102),
        Identity::new(1000, 2001),
        Identity::app().acting_as(1337),
    ]
}

/// What can be compared: ports that the kernel chose differ, and of a call that was not redirected only conntrack knows
/// an original destination.
fn describe(seen: Result<Seen, Errno>) -> String {
    match seen {
        Err(errno) => errno.to_string(),
        Ok(seen) => {
            let original = match (seen.by.as_str(), seen.original) {
                ("outbound" | "inbound" | "dns", Ok(original)) => original.to_string(),
                ("outbound" | "inbound" | "dns", Err(errno)) => errno.to_string(),
                _ => "none".to_owned(),
            };
            let source = unmapped(seen.source.ip());
            let (by, peer) = (seen.by, seen.peer_name);
            format!("{by}, from {source}, original {original}, getpeername {peer}")
        }
    }
}

fn ask(actor: &Actor, server: &str) -> String {
    let family = if server.starts_with('[') {
        Family::V6
    } else {
        Family::V4
    };
    let socket = actor.socket(family, Kind::Udp).expect("a socket");
    let asked = socket
        .send_to(b"?", server)
        .and_then(|()| socket.receive_from());
    match asked {
        Err(errno) => errno.to_string(),
        Ok((bytes, from)) => {
            let report: sidestep_kit::actor::Report =
                serde_json::from_slice(&bytes).expect("a report");
            format!("{}, the answer from {from:?}", report.name)
        }
    }
}

fn with_port(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}
