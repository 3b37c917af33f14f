//! DNS queries, where the policy captures them: the proxy's resolver answers, and the answer comes from who was asked.

use sidestep_kit::{
    actor::{Actor, Family, Kind, Socket},
    both_ways,
    net::Namespace,
    redirect::Node,
};

use crate::{POD, assert_captured_from};

/// In the pod's resolv.conf.
const LISTED: &str = "10.77.0.53:53";
/// Not in it.
const OTHER: &str = "10.77.0.54:53";
const LISTED_MAPPED: &str = "[::ffff:10.77.0.53]:53";
const OTHER_MAPPED: &str = "[::ffff:10.77.0.54]:53";

both_ways! {
    fn a_connected_socket_is_answered_by_the_proxys_resolver(node) {
        let (pod, _proxy) = node.pod_with_proxy("dns", &[POD]);
        assert_eq!(ask_connected(&pod.app(), Family::V4, LISTED), "dns");
    }

    fn an_unconnected_socket_is_answered_by_the_proxys_resolver(node) {
        let (pod, _proxy) = node.pod_with_proxy("dns", &[POD]);
        assert_eq!(ask(&udp(&pod.app(), Family::V4), LISTED), "dns");
    }

    fn ipv4_mapped_sockets_are_answered_by_the_proxys_resolver(node) {
        let (pod, _proxy) = node.pod_with_proxy("dns", &[POD]);
        assert_eq!(ask_connected(&pod.app(), Family::V6, LISTED_MAPPED), "dns");
        assert_eq!(ask(&udp(&pod.app(), Family::V6), LISTED_MAPPED), "dns");
    }

    fn servers_that_are_not_in_resolv_conf_are_reached_directly(node) {
        let _resolver = Resolver::new(node);
        let (pod, _proxy) = node.pod_with_proxy("dns", &[POD]);
        assert_eq!(ask_connected(&pod.app(), Family::V4, OTHER), "resolver");
        assert_eq!(ask(&udp(&pod.app(), Family::V4), OTHER), "resolver");
        assert_eq!(ask(&udp(&pod.app(), Family::V6), OTHER_MAPPED), "resolver");
    }

    fn every_server_is_captured_where_the_policy_says_so(node) {
        let _resolver = Resolver::new(node);
        let (pod, _proxy) = node.pod_with_proxy("dns-all", &[POD]);
        assert_eq!(ask_connected(&pod.app(), Family::V4, OTHER), "dns");
        assert_eq!(ask(&udp(&pod.app(), Family::V4), OTHER), "dns");
    }

    fn one_socket_asks_two_servers_in_turn(node) {
        let _resolver = Resolver::new(node);
        let (pod, _proxy) = node.pod_with_proxy("dns", &[POD]);
        let socket = udp(&pod.app(), Family::V4);
        for _ in 0..3 {
            assert_eq!(ask(&socket, LISTED), "dns");
            assert_eq!(ask(&socket, OTHER), "resolver");
        }
    }

    fn one_socket_connected_to_two_servers_in_turn(node) {
        let _resolver = Resolver::new(node);
        let (pod, _proxy) = node.pod_with_proxy("dns", &[POD]);
        let socket = udp(&pod.app(), Family::V4);
        for (server, answers) in [(LISTED, "dns"), (OTHER, "resolver"), (LISTED, "dns")] {
            socket.connect(server).expect("UDP always connects");
            assert_eq!(ask_peer(&socket, server), answers);
        }
    }

    fn servers_asked_at_once_by_one_socket_each_get_an_answer_from_one_of_them(node) {
        let (pod, _proxy) = node.pod_with_proxy("dns-all", &[POD]);
        let socket = udp(&pod.app(), Family::V4);
        let servers = ["10.77.0.53:53", "10.77.0.54:53", "10.78.0.2:53"];
        for server in servers {
            socket.send_to(b"?", server).expect("it can send");
        }
        // Which one iptables knows; musl, which asks like this, only looks whether it is one of them.
        for _ in servers {
            let (_, from) = socket.receive_from().expect("an answer");
            let from = from.expect("datagrams have a sender").to_string();
            assert!(servers.contains(&from.as_str()), "{from}");
        }
    }

    fn the_proxys_own_queries_reach_the_server(node) {
        let _resolver = Resolver::new(node);
        let (_pod, proxy) = node.pod_with_proxy("dns", &[POD]);
        assert_eq!(ask_connected(proxy.actor(), Family::V4, LISTED), "resolver");
        assert_eq!(ask(&udp(proxy.actor(), Family::V4), LISTED), "resolver");
    }

    fn queries_over_tcp_reach_the_proxys_resolver(node) {
        let (pod, _proxy) = node.pod_with_proxy("dns", &[POD]);
        assert_captured_from(pod.app().call(LISTED), "dns", POD, LISTED);
    }

    fn queries_over_tcp_to_servers_not_in_resolv_conf_reach_the_outbound_port(node) {
        let (pod, _proxy) = node.pod_with_proxy("dns", &[POD]);
        assert_captured_from(pod.app().call(OTHER), "outbound", POD, OTHER);
    }

    fn other_datagrams_pass(node) {
        let resolver = Resolver::new(node);
        let _listener = resolver.actor.serve("time", Kind::Udp, "10.77.0.53:123");
        let (pod, _proxy) = node.pod_with_proxy("dns-all", &[POD]);
        assert_eq!(ask(&udp(&pod.app(), Family::V4), "10.77.0.53:123"), "time");
    }

    fn nothing_is_captured_where_the_policy_does_not_ask_for_it(node) {
        let _resolver = Resolver::new(node);
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        assert_eq!(ask_connected(&pod.app(), Family::V4, LISTED), "resolver");
    }
}

/// A host with both name servers' addresses.
struct Resolver {
    actor: Actor,
    _sockets: [Socket; 2],
    _namespace: Namespace,
}

impl Resolver {
    fn new(node: &Node) -> Self {
        let namespace = node
            .network()
            .host("resolver", &["10.77.0.53", "10.77.0.54"]);
        let actor = node.actor_in(&namespace);
        Self {
            _sockets: [LISTED, OTHER].map(|address| actor.serve("resolver", Kind::Udp, address)),
            actor,
            _namespace: namespace,
        }
    }
}

fn udp(actor: &Actor, family: Family) -> Socket {
    actor.socket(family, Kind::Udp).expect("a socket")
}

/// Asks with sendto; who answers, if the answer comes from the server that was asked.
#[track_caller]
fn ask(socket: &Socket, server: &str) -> String {
    socket.send_to(b"?", server).expect("it can send");
    let (bytes, from) = socket.receive_from().expect("an answer");
    assert_eq!(
        from.map(|from| from.to_string()),
        Some(server.to_owned()),
        "the answer's sender"
    );
    let report: sidestep_kit::actor::Report = serde_json::from_slice(&bytes).expect("a report");
    report.name
}

/// Asks with a connected socket; who answers.
#[track_caller]
fn ask_connected(actor: &Actor, family: Family, server: &str) -> String {
    let socket = udp(actor, family);
    socket.connect(server).expect("UDP always connects");
    ask_peer(&socket, server)
}

#[track_caller]
fn ask_peer(socket: &Socket, server: &str) -> String {
    socket.send(b"?").expect("it can send");
    let name = socket.report().expect("an answer").name;
    assert_eq!(
        socket.peer_name().expect("a connected socket").to_string(),
        server
    );
    name
}
