//! IPv6, where it is captured and where it is not.

use sidestep_kit::{
    actor::{Family, Kind},
    both_ways, needs,
    net::{OUTSIDE_V4, OUTSIDE_V6},
    redirect::{Node, Redirect},
};

use crate::{POD, SERVICE, assert_captured_from, assert_straight_from};

const POD6: &str = "fd77::10";
const SERVICE6: &str = "[fd96::7]:80";

both_ways! {
    fn an_application_of_a_dual_stack_pod_reaches_the_outbound_port(node) {
        let (pod, _proxy) = node.pod_with_proxy("dual-stack", &[POD, POD6]);
        assert_captured_from(pod.app().call(SERVICE6), "outbound", POD6, SERVICE6);
        assert_captured_from(pod.app().call(SERVICE), "outbound", POD, SERVICE);
        assert_captured_from(pod.app().call("[::ffff:10.96.0.7]:80"), "outbound", POD, SERVICE);
    }

    fn an_application_of_an_ipv6_pod_reaches_the_outbound_port(node) {
        let (pod, _proxy) = node.pod_with_proxy("ipv6", &[POD6]);
        assert_captured_from(pod.app().call(SERVICE6), "outbound", POD6, SERVICE6);
    }

    fn a_call_from_outside_reaches_the_inbound_port_of_a_dual_stack_pod(node) {
        let (pod, _proxy) = node.pod_with_proxy("dual-stack", &[POD, POD6]);
        let _listener = pod.app().serve("app", Kind::Tcp, "[::]:8080");
        let outside = node.outside();
        let (v4, v6) = (format!("{POD}:8080"), format!("[{POD6}]:8080"));
        assert_captured_from(outside.call(&v6), "inbound", OUTSIDE_V6, &v6);
        assert_captured_from(outside.call(&v4), "inbound", OUTSIDE_V4, &v4);
    }

    fn an_excluded_inbound_port_is_reached_directly_over_ipv6(node) {
        let (_pod, proxy) = node.pod_with_proxy("dual-stack", &[POD, POD6]);
        let _listener = proxy.actor().serve("metrics", Kind::Tcp, "[::]:15020");
        let target = format!("[{POD6}]:15020");
        assert_straight_from(node.outside().call(&target), "metrics", OUTSIDE_V6, &target);
    }

    fn within_a_pod_ipv6_goes_the_same_ways_as_ipv4(node) {
        let (pod, proxy) = node.pod_with_proxy("dual-stack", &[POD, POD6]);
        let app = pod.app();
        let _listener = app.serve("app", Kind::Tcp, "[::]:8080");
        let own = format!("[{POD6}]:8080");
        assert_captured_from(proxy.actor().call(&own), "inbound", POD6, &own);
        assert_straight_from(app.call(&own), "app", POD6, &own);
        assert_straight_from(app.call("[::1]:8080"), "app", "::1", "[::1]:8080");
        assert_straight_from(proxy.actor().call("[::1]:8080"), "app", "::1", "[::1]:8080");
    }

    fn the_proxy_bound_to_6_reaches_the_application(node) {
        let (pod, proxy) = node.pod_with_proxy("dual-stack", &[POD, POD6]);
        let _listener = pod.app().serve("app", Kind::Tcp, "[::]:8080");
        let socket = proxy.actor().socket(Family::V6, Kind::Tcp).expect("a socket");
        socket.bind("[::6]:0").expect("the pod has ::6");
        let own = format!("[{POD6}]:8080");
        socket.connect(&own).expect("the application listens");
        assert_straight_from(socket.seen(), "app", "::6", &own);
    }

    fn the_proxy_of_a_dual_stack_pod_reaches_services(node) {
        let _service = node.outside().serve("service", Kind::Tcp, "[::]:80");
        let (_pod, proxy) = node.pod_with_proxy("dual-stack", &[POD, POD6]);
        let target = format!("[{OUTSIDE_V6}]:80");
        assert_straight_from(proxy.actor().call(&target), "service", POD6, &target);
    }

    fn ipv6_is_left_alone_where_the_pods_first_address_is_ipv4(node) {
        let service = node.outside();
        let _service = service.serve("service", Kind::Tcp, "[::]:80");
        let (pod, _proxy) = node.pod_with_proxy("ipv4-first", &[POD, POD6]);
        let app = pod.app();
        let _listener = app.serve("app", Kind::Tcp, "[::]:8080");
        let (target, own) = (format!("[{OUTSIDE_V6}]:80"), format!("[{POD6}]:8080"));
        assert_straight_from(app.call(&target), "service", POD6, &target);
        assert_straight_from(service.call(&own), "app", OUTSIDE_V6, &own);
        assert_captured_from(app.call(SERVICE), "outbound", POD, SERVICE);
    }

    /// The kernel takes `::6` for the source of an unbound socket, and the rule for that source comes first.
    fn the_proxy_reaches_6_straight_unless_it_is_bound(node) {
        let (pod, proxy) = node.pod_with_proxy("dual-stack", &[POD, POD6]);
        let app = pod.app();
        let _listener = app.serve("app", Kind::Tcp, "[::]:8080");
        for caller in [&app, proxy.actor()] {
            assert_straight_from(caller.call("[::6]:8080"), "app", "::6", "[::6]:8080");
        }
        let socket = proxy.actor().socket(Family::V6, Kind::Tcp).expect("a socket");
        socket.bind(&format!("[{POD6}]:0")).expect("the pod's address");
        socket.connect("[::6]:8080").expect("the proxy listens");
        assert_captured_from(socket.seen(), "inbound", POD6, "[::6]:8080");
    }

    fn a_socket_bound_to_the_pods_ipv6_address_keeps_it(node) {
        let (pod, _proxy) = node.pod_with_proxy("dual-stack", &[POD, POD6]);
        let socket = pod.app().socket(Family::V6, Kind::Tcp).expect("a socket");
        socket.bind(&format!("[{POD6}]:4000")).expect("the pod's address");
        socket.connect(SERVICE6).expect("the proxy listens");
        assert_captured_from(socket.seen(), "outbound", POD6, SERVICE6);
    }

    fn a_socket_bound_to_a_port_only_gets_the_pods_ipv6_address(node) {
        let (pod, _proxy) = node.pod_with_proxy("dual-stack", &[POD, POD6]);
        let socket = pod.app().socket(Family::V6, Kind::Tcp).expect("a socket");
        socket.bind("[::]:4000").expect("a free port");
        socket.connect(SERVICE6).expect("the proxy listens");
        assert_captured_from(socket.seen(), "outbound", POD6, SERVICE6);
    }

    fn an_mptcp_client_is_captured_over_ipv6(node) {
        let (pod, _proxy) = node.pod_with_proxy("dual-stack", &[POD, POD6]);
        let socket = pod.app().socket(Family::V6, Kind::Mptcp).expect("a socket");
        socket.connect(SERVICE6).expect("the proxy listens");
        assert_captured_from(socket.seen(), "outbound", POD6, SERVICE6);
    }
}

/// Their one table is both families', so that a pod whose first address is IPv4 has its IPv6 captured as well, by the rules that
/// name no family.
fn native_nftables_capture_ipv6(redirect: Redirect) {
    let node = Node::new(redirect);
    let outside = node.outside();
    let _service = outside.serve("service", Kind::Tcp, "[::]:80");
    let (pod, proxy) = node.pod_with_proxy("native-nftables", &[POD, POD6]);
    let app = pod.app();
    let _listener = app.serve("app", Kind::Tcp, "[::]:8080");
    let (target, own) = (format!("[{OUTSIDE_V6}]:80"), format!("[{POD6}]:8080"));
    assert_captured_from(app.call(&target), "outbound", POD6, &target);
    assert_captured_from(app.call(SERVICE6), "outbound", POD6, SERVICE6);
    assert_captured_from(outside.call(&own), "inbound", OUTSIDE_V6, &own);
    assert_straight_from(proxy.actor().call(&target), "service", POD6, &target);
    // Row 3 names a family: what the proxy calls of its own pod's is not captured.
    for caller in [&app, proxy.actor()] {
        assert_straight_from(caller.call(&own), "app", POD6, &own);
        assert_straight_from(caller.call("[::1]:8080"), "app", "::1", "[::1]:8080");
    }
    assert_captured_from(app.call(SERVICE), "outbound", POD, SERVICE);
}

#[needs(root, "nft")]
fn native_nftables_capture_ipv6_where_istio_names_no_family() {
    native_nftables_capture_ipv6(Redirect::Nftables);
}

#[needs(root)]
fn so_does_sidestep() {
    native_nftables_capture_ipv6(Redirect::Sidestep);
}
