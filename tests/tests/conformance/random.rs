//! Random policies, whose rules Istio's own program writes here and now, and random calls of every kind of socket near each
//! policy's own values: what happens must be what all four answers say.

use std::net::{IpAddr, SocketAddr};

use fastrand::Rng;
use serde_json::{Value, json};
use sidestep_kit::{
    actor::Identity,
    needs,
    redirect::{Node, Pod, Redirect},
};
use sidestep_oracle::{
    attempts::{self, Attempt},
    host::State,
    istio::write_rules,
    ours::Ours,
    plan::random_policy,
    policy::Written,
};
use sidestep_walker::{Protocol, Way};

use crate::{
    POD,
    calls::{Call, How},
    four::{Predictions, Table, answer_for_everybody},
    world::{NEIGHBOUR, World, file_of},
};

const POD6: &str = "fd77::10";
/// Policies of one kind of pod.
const POLICIES: usize = 12;
/// Calls by TCP with each policy, both ways.
const CALLS: usize = 40;
/// Those who ask a name server, beside the proxy.
const ASKING: usize = 2;

#[needs(root, part("pilot-agent"), "nft")]
fn random_policies_of_a_pod_with_ipv4() {
    compare(&[POD], &["10.77.0.53"]);
}

#[needs(root, part("pilot-agent"), "nft")]
fn random_policies_of_a_pod_with_ipv6() {
    compare(&[POD6], &["fd77::53"]);
}

#[needs(root, part("pilot-agent"), "nft")]
fn random_policies_of_a_pod_with_both() {
    compare(&[POD, POD6], &["10.77.0.53", "fd77::53"]);
}

fn compare(addresses: &[&str], name_servers: &[&str]) {
    let given = std::env::var("SIDESTEP_SEED").ok();
    let seed = given.map_or_else(
        || fastrand::u64(..),
        |it| it.parse().expect("SIDESTEP_SEED: a number"),
    );
    let mut rng = Rng::with_seed(seed);
    let mut table = Table::default();
    let mut policies = 0;
    while policies < POLICIES {
        let policy = random_policy(&mut rng);
        policies += usize::from(add(&mut table, &policy, &mut rng, addresses, name_servers));
    }
    let what = format!("{policies} random policies at {addresses:?}, SIDESTEP_SEED={seed}");
    table.assert_equal(&what);
}

/// Adds a policy's calls to the table, unless Sidestep leaves it to Istio or Istio's program refuses it.
fn add(
    table: &mut Table,
    policy: &Written,
    rng: &mut Rng,
    addresses: &[&str],
    name_servers: &[&str],
) -> bool {
    let node = Node::new(Redirect::Iptables);
    answer_for_everybody(&node);
    let pod = node.bare_pod("client", addresses);
    let loaded = write_rules(pod.namespace(), policy, name_servers);
    let state = State::read(pod.namespace(), name_servers);
    let (Ok(ours), Some(rules)) = (Ours::of(policy, &state), loaded.rules()) else {
        return false;
    };
    let port = |name| policy.of(name).parse().expect("a port");
    let (outbound, inbound) = (port("-p"), port("-z"));
    let proxy = proxy_of(policy);
    let world = |node, pod| World::new(node, pod, &proxy, outbound, inbound);
    let istio = world(node, pod);

    let node = Node::new(Redirect::Sidestep);
    answer_for_everybody(&node);
    let pod = node.bare_pod("client", addresses);
    node.program(&pod, &manifest(&pod, policy, name_servers));
    let sidestep = world(node, pod);

    let predictions = Predictions {
        namespace: istio.pod().namespace(),
        rules: rules.unwrap_or_else(|unknown| panic!("{policy}: {unknown}")),
        ours,
        outbound,
        inbound,
    };
    let calls = calls(istio.pod(), policy, &state, rng, &proxy);
    table.add(&calls, [&istio, &sidestep], &predictions);
    true
}

/// The proxy's ids, by which its listeners are known: the first of each list.
fn proxy_of(policy: &Written) -> Identity {
    let first = |name| {
        let mut items = policy.of(name).split(',');
        items.find_map(|it| it.parse().ok())
    };
    let uid = first("-u").expect("a uid");
    Identity::new(uid, first("-g").unwrap_or(uid))
}

/// The fixture's file, with another policy and these name servers.
fn manifest(pod: &Pod, policy: &Written, name_servers: &[&str]) -> String {
    let mut manifest: Value = file_of(pod);
    manifest["spec"]["dnsConfig"]["nameservers"] = json!(name_servers);
    let containers = manifest["spec"]["initContainers"].as_array_mut();
    let mut containers = containers.expect("init containers").iter_mut();
    let init = containers.find(|it| it["name"] == "istio-init");
    let init = init.expect("an istio-init");
    let said = policy.container();
    init["args"] = json!(said.args);
    init["env"] = json!(said.env);
    manifest.to_string()
}

fn calls(pod: &Pod, policy: &Written, state: &State, rng: &mut Rng, proxy: &Identity) -> Vec<Call> {
    let attempts = attempts::near(pod.namespace(), policy, state, rng.u64(..), 8 * CALLS);
    let tcp = attempts
        .iter()
        .filter(|it| it.packet.protocol == Protocol::Tcp);
    let reached = tcp.filter(|it| is_reached(it));
    let mut calls: Vec<Call> = reached.take(CALLS).map(|it| call(it, rng)).collect();
    // Datagrams are of interest to port 53 alone, and an answer must come from the address that was asked.
    let servers = NEIGHBOUR
        .into_iter()
        .map(|it| it.parse().expect("an address"));
    let servers: Vec<IpAddr> = servers.chain(pod.addresses().iter().copied()).collect();
    let others: Vec<_> = calls.iter().filter_map(|call| call.who.clone()).collect();
    let asking = others.into_iter().take(ASKING).chain([proxy.clone()]);
    for who in asking {
        for (i, server) in servers.iter().enumerate() {
            let spoken = pod
                .addresses()
                .iter()
                .any(|it| it.is_ipv4() == server.is_ipv4());
            if spoken {
                calls.push(Call {
                    who: Some(who.clone()),
                    how: How::Udp {
                        connected: i % 2 == 0,
                    },
                    bound: None,
                    to: SocketAddr::new(*server, 53),
                });
            }
        }
    }
    calls
}

fn call(attempt: &Attempt, rng: &mut Rng) -> Call {
    let who = match attempt.packet.way {
        Way::In => None,
        Way::Out { uid, gid, .. } => Some(Identity::new(uid, gid)),
    };
    let how = match rng.u8(..6) {
        _ if who.is_none() => How::Tcp,
        0 => How::Mptcp,
        1 => How::FastOpen,
        _ => How::Tcp,
    };
    Call {
        who,
        how,
        bound: attempt.bound,
        to: attempt.to,
    }
}

/// Whether somebody answers there at once, be it by a refusal.
fn is_reached(attempt: &Attempt) -> bool {
    let loopback = match attempt.packet.way {
        Way::In => return true,
        Way::Out { loopback, .. } => loopback,
    };
    let to = attempt.packet.destination.ip();
    let on_the_bridge = |prefix: &str| to.to_string().starts_with(prefix);
    let neighbours = NEIGHBOUR.iter().any(|it| to.to_string() == *it);
    match to {
        _ if loopback || neighbours => true,
        _ if on_the_bridge("10.77.") || on_the_bridge("fd77:") => false,
        // Routers drop what is to no host's address.
        IpAddr::V4(v4) => {
            let first = v4.octets()[0];
            (1..224).contains(&first) && first != 127 && !v4.is_link_local()
        }
        IpAddr::V6(v6) => matches!(v6.segments()[0], 0x2000..=0x3fff | 0xfd00..=0xfdff),
    }
}
