//! Kinds of sockets and what a program may do with one before it connects.

use std::time::Duration;

use sidestep_kit::{
    actor::{Actor, Errno, Family, Identity, Kind, Socket},
    both_ways, needs,
    net::OUTSIDE_V4,
    redirect::{Node, Pod, Redirect},
};

use crate::{POD, SERVICE, assert_captured_from, assert_straight_from};

const EXCLUDED: &str = "10.77.9.1:80";

both_ways! {
    fn an_mptcp_client_is_captured_as_tcp(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let socket = pod.app().socket(Family::V4, Kind::Mptcp).expect("a socket");
        socket.connect(SERVICE).expect("the proxy listens");
        assert_captured_from(socket.seen(), "outbound", POD, SERVICE);
    }

    fn an_mptcp_client_that_is_the_proxy_passes(node) {
        let _service = node.outside().serve("service", Kind::Tcp, "0.0.0.0:80");
        let (_pod, proxy) = node.pod_with_proxy("client", &[POD]);
        let socket = proxy.actor().socket(Family::V4, Kind::Mptcp).expect("a socket");
        let target = format!("{OUTSIDE_V4}:80");
        socket.connect(&target).expect("the service listens");
        assert_straight_from(socket.seen(), "service", POD, &target);
    }

    fn a_proxy_with_mptcp_listeners_gets_the_original_destination(node) {
        let (pod, proxy) = pod_with_mptcp_proxy(node);
        assert_captured_from(pod.app().call(SERVICE), "outbound", POD, SERVICE);
        let own = format!("{POD}:8080");
        assert_captured_from(proxy.actor.call(&own), "inbound", POD, &own);
    }

    fn a_proxy_that_listens_on_loopback_only_is_reached(node) {
        let pod = node.pod("client", &[POD]);
        let proxy = pod.actor(&Identity::proxy());
        let _listeners = [
            proxy.serve("outbound", Kind::Tcp, "127.0.0.1:15001"),
            proxy.serve("inbound", Kind::Tcp, "127.0.0.1:15006"),
        ];
        node.wait_active(&pod);
        let own = format!("{POD}:8080");
        assert_captured_from(proxy.call(&own), "inbound", POD, &own);
        assert_captured_from(pod.app().call(SERVICE), "outbound", POD, SERVICE);
    }

    fn an_mptcp_client_reaches_a_proxy_with_mptcp_listeners(node) {
        let (pod, _proxy) = pod_with_mptcp_proxy(node);
        let socket = pod.app().socket(Family::V4, Kind::Mptcp).expect("a socket");
        socket.connect(SERVICE).expect("the proxy listens");
        let mut seen = socket.seen().expect("the proxy answers");
        if node.redirect() == Redirect::Iptables {
            // Linux does not pass this question on from an MPTCP socket to conntrack. We can answer it.
            assert_eq!(seen.original, Err(Errno(libc::EOPNOTSUPP)));
            seen.original = Ok(SERVICE.parse().expect("an address"));
        }
        assert_captured_from(Ok(seen), "outbound", POD, SERVICE);
    }

    fn one_socket_is_captured_then_local_then_captured_again(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let _listener = pod.app().serve("app", Kind::Tcp, "127.0.0.1:8080");
        let socket = pod.app().socket(Family::V4, Kind::Tcp).expect("a socket");
        for _ in 0..2 {
            socket.connect(SERVICE).expect("the proxy listens");
            assert_captured_from(socket.seen(), "outbound", POD, SERVICE);
            socket.disconnect().expect("a connected socket");
            socket.connect("127.0.0.1:8080").expect("the application listens");
            assert_straight_from(socket.seen(), "app", "127.0.0.1", "127.0.0.1:8080");
            socket.disconnect().expect("a connected socket");
        }
    }

    fn one_socket_is_captured_then_excluded_then_captured_again(node) {
        let (_neighbour, _service) = excluded_service(node);
        let (pod, _proxy) = node.pod_with_proxy("exclude", &[POD]);
        let socket = pod.app().socket(Family::V4, Kind::Tcp).expect("a socket");
        for _ in 0..2 {
            socket.connect(SERVICE).expect("the proxy listens");
            assert_captured_from(socket.seen(), "outbound", POD, SERVICE);
            socket.disconnect().expect("a connected socket");
            socket.connect(EXCLUDED).expect("the service listens");
            assert_straight_from(socket.seen(), "service", POD, EXCLUDED);
            socket.disconnect().expect("a connected socket");
        }
    }

    fn a_refused_capture_leaves_nothing_on_the_socket(node) {
        let (_neighbour, _service) = excluded_service(node);
        let (pod, proxy) = node.pod_with_proxy("exclude", &[POD]);
        let socket = pod.app().socket(Family::V4, Kind::Tcp).expect("a socket");
        proxy.kill();
        assert_eq!(socket.connect(SERVICE), Err(Errno::REFUSED));
        socket.connect(EXCLUDED).expect("the service listens");
        assert_straight_from(socket.seen(), "service", POD, EXCLUDED);
    }

    fn an_ipv4_mapped_client_is_captured_as_ipv4(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let app = pod.app();
        let _listener = app.serve("app", Kind::Tcp, "0.0.0.0:8080");
        assert_captured_from(app.call("[::ffff:10.96.0.7]:80"), "outbound", POD, SERVICE);
        let own = format!("{POD}:8080");
        assert_straight_from(app.call(&format!("[::ffff:{own}").replacen(":8080", "]:8080", 1)), "app", POD, &own);
        assert_straight_from(app.call("[::ffff:127.0.0.1]:8080"), "app", "127.0.0.1", "127.0.0.1:8080");
    }

    fn an_ipv4_mapped_proxy_calls_its_own_pods_address(node) {
        let (_pod, proxy) = node.pod_with_proxy("client", &[POD]);
        let own = format!("{POD}:8080");
        assert_captured_from(proxy.actor().call(&format!("[::ffff:{POD}]:8080")), "inbound", POD, &own);
    }

    fn a_socket_bound_to_the_pods_address_keeps_it(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let socket = bound(&pod.app(), &format!("{POD}:4000"));
        socket.connect(SERVICE).expect("the proxy listens");
        let seen = socket.seen();
        assert_eq!(seen.as_ref().map(|seen| seen.source.port()), Ok(4000));
        assert_captured_from(seen, "outbound", POD, SERVICE);
    }

    fn a_socket_bound_to_a_port_only_gets_the_pods_address(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let socket = bound(&pod.app(), "0.0.0.0:4000");
        socket.connect(SERVICE).expect("the proxy listens");
        let seen = socket.seen();
        assert_eq!(seen.as_ref().map(|seen| seen.source.port()), Ok(4000));
        assert_captured_from(seen, "outbound", POD, SERVICE);
    }

    fn a_socket_bound_to_loopback_cannot_leave_the_pod(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let socket = bound(&pod.app(), "127.0.0.1:0");
        assert_eq!(socket.connect(SERVICE), Err(Errno(libc::EINVAL)));
    }

    /// The proxy listens on `lo`, so with iptables the packets find nobody. We can do better, but must not let them out.
    fn a_socket_tied_to_eth0_does_not_go_around_the_proxy(node) {
        let _service = node.outside().serve("service", Kind::Tcp, "0.0.0.0:80");
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let socket = pod.app().socket(Family::V4, Kind::Tcp).expect("a socket");
        socket.bind_to_device("eth0").expect("the pod has eth0");
        let target = format!("{OUTSIDE_V4}:80");
        let connected = socket.connect_within(&target, Duration::from_millis(500));
        match node.redirect() {
            Redirect::Iptables | Redirect::Nftables => assert_eq!(connected, Err(Errno::TIMED_OUT)),
            Redirect::Sidestep => {
                let seen = connected.and_then(|()| socket.seen());
                assert_captured_from(seen, "outbound", POD, &target);
            }
        }
    }

    fn the_original_destination_needs_sixteen_bytes(node) {
        let pod = node.pod("client", &[POD]);
        let proxy = pod.actor(&Identity::proxy());
        let inbound = proxy.listen("0.0.0.0:15006");
        let outbound = proxy.listen("0.0.0.0:15001");
        node.wait_active(&pod);
        let _client = pod.app().connect(SERVICE).expect("the proxy listens");
        let outside = node.outside();
        let _other = outside.connect(&format!("{POD}:8080")).expect("the proxy listens");
        for listener in [outbound, inbound] {
            let (accepted, _) = listener.accept().expect("a connection waits");
            let large = accepted.option(libc::SOL_IP, 80, 128).expect("as Envoy asks");
            let exact = accepted.option(libc::SOL_IP, 80, 16).expect("the size of an address");
            assert_eq!(large[..16], exact);
            assert_eq!(accepted.option(libc::SOL_IP, 80, 15).err(), Some(Errno(libc::EINVAL)));
        }
    }
}

/// iptables catches such segments; hooks on sockets cannot, so the socket itself is refused.
#[needs(root)]
fn raw_tcp_sockets_are_the_proxys_alone() {
    let node = Node::new(Redirect::Sidestep);
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let root = pod.actor(&Identity::new(0, 0));
    for family in [Family::V4, Family::V6] {
        for kind in [Kind::RawTcp, Kind::RawIp] {
            assert_eq!(
                root.socket(family, kind).err(),
                Some(Errno::NOT_PERMITTED),
                "{kind:?}"
            );
        }
    }
    root.socket(Family::V4, Kind::RawIcmp).expect("ping works");
    let proxy = pod.actor(&Identity::new(0, 1337));
    proxy
        .socket(Family::V4, Kind::RawTcp)
        .expect("the proxy may");

    let outside = node.outside();
    outside
        .socket(Family::V4, Kind::RawTcp)
        .expect("other processes may");
}

/// By its own word, as `iptables-legacy` needs it.
#[needs(root)]
fn a_pod_that_says_so_has_raw_sockets() {
    let node = Node::new(Redirect::Sidestep);
    let pod = node.bare_pod("client", &[POD]);
    node.program(
        &pod,
        &pod.annotated(&[("sidestep.dev/raw-sockets", "allow")]),
    );
    let _proxy = pod.proxy();
    node.wait_active(&pod);
    let root = pod.actor(&Identity::new(0, 0));
    for kind in [Kind::RawTcp, Kind::RawIp] {
        root.socket(Family::V4, kind).expect("its word");
    }
    assert_captured_from(root.call(SERVICE), "outbound", POD, SERVICE);
}

fn excluded_service(node: &Node) -> (sidestep_kit::net::Namespace, Socket) {
    let neighbour = node.network().host("service", &["10.77.9.1"]);
    let service = node
        .actor_in(&neighbour)
        .serve("service", Kind::Tcp, "0.0.0.0:80");
    (neighbour, service)
}

fn bound(actor: &Actor, address: &str) -> Socket {
    let socket = actor.socket(Family::V4, Kind::Tcp).expect("a socket");
    socket.bind(address).expect("a free address");
    socket
}

/// As every Go program listens, Istio's own gate among them.
struct MptcpProxy {
    actor: Actor,
    _listeners: [Socket; 2],
}

fn pod_with_mptcp_proxy(node: &Node) -> (Pod, MptcpProxy) {
    let pod = node.pod("client", &[POD]);
    let actor = pod.actor(&Identity::proxy());
    let listeners = [
        actor.serve("outbound", Kind::Mptcp, "0.0.0.0:15001"),
        actor.serve("inbound", Kind::Mptcp, "127.0.0.1:15006"),
    ];
    node.wait_active(&pod);
    (
        pod,
        MptcpProxy {
            actor,
            _listeners: listeners,
        },
    )
}
