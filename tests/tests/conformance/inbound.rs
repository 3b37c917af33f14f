//! Connections that come from outside of the pod.

use sidestep_kit::{
    actor::{Actor, Family, Identity, Kind, Socket},
    both_ways,
    net::OUTSIDE_V4,
};

use crate::{POD, assert_captured_from, assert_straight_from};

both_ways! {
    fn a_call_from_outside_reaches_the_inbound_port(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let _listener = pod.app().serve("app", Kind::Tcp, "0.0.0.0:8080");
        assert_inbound(&node.outside(), 8080);
    }

    fn a_call_from_a_neighbour_reaches_the_inbound_port(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let _listener = pod.app().serve("app", Kind::Tcp, "0.0.0.0:8080");
        let neighbour = node.network().host("neighbour", &["10.77.0.99"]);
        let own = format!("{POD}:8080");
        assert_captured_from(node.actor_in(&neighbour).call(&own), "inbound", "10.77.0.99", &own);
    }

    fn a_port_on_which_nobody_listens_is_the_proxys_to_refuse(node) {
        let (_pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        assert_inbound(&node.outside(), 4444);
    }

    fn probes_and_metrics_reach_their_excluded_ports(node) {
        let (_pod, proxy) = node.pod_with_proxy("client", &[POD]);
        let _listeners = serve_each(proxy.actor(), &[15020, 15021, 15090]);
        for port in [15020, 15021, 15090] {
            assert_direct(&node.outside(), port);
        }
    }

    fn the_tunnel_port_is_reached_directly(node) {
        let (_pod, proxy) = node.pod_with_proxy("client", &[POD]);
        let _listeners = serve_each(proxy.actor(), &[15008]);
        assert_direct(&node.outside(), 15008);
    }

    fn the_proxys_own_ports_are_captured_from_outside(node) {
        let (_pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        assert_inbound(&node.outside(), 15001);
        assert_inbound(&node.outside(), 15006);
    }

    fn excluded_ports_are_reached_directly_and_all_others_captured(node) {
        let (pod, _proxy) = node.pod_with_proxy("exclude", &[POD]);
        let _listeners = serve_each(&pod.app(), &[8080, 9000, 9100]);
        assert_direct(&node.outside(), 9000);
        assert_direct(&node.outside(), 9100);
        assert_inbound(&node.outside(), 8080);
    }

    fn only_included_ports_are_captured(node) {
        let (pod, _proxy) = node.pod_with_proxy("include", &[POD]);
        let _listeners = serve_each(&pod.app(), &[8080, 8081, 9000]);
        assert_inbound(&node.outside(), 8080);
        assert_inbound(&node.outside(), 8081);
        assert_direct(&node.outside(), 9000);
    }

    fn no_inbound_port_is_captured_where_the_list_is_empty(node) {
        let (pod, _proxy) = node.pod_with_proxy("include-ports-none", &[POD]);
        let _listeners = serve_each(&pod.app(), &[8080]);
        assert_direct(&node.outside(), 8080);
    }

    fn an_mptcp_listener_of_the_application_is_captured_too(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let _listener = pod.app().serve("app", Kind::Mptcp, "0.0.0.0:8080");
        assert_inbound(&node.outside(), 8080);
    }

    fn an_mptcp_client_outside_is_captured_too(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let _listener = pod.app().serve("app", Kind::Mptcp, "0.0.0.0:8080");
        let socket = node.outside().socket(Family::V4, Kind::Mptcp).expect("a socket");
        let target = format!("{POD}:8080");
        socket.connect(&target).expect("the proxy listens");
        assert_captured_from(socket.seen(), "inbound", OUTSIDE_V4, &target);
    }

    fn connections_are_spread_over_the_proxys_workers(node) {
        let pod = node.pod("client", &[POD]);
        let proxy = pod.actor(&Identity::proxy());
        let mut workers: Vec<_> = ["first", "second"]
            .iter()
            .map(|name| proxy.serve(name, Kind::Tcp, "0.0.0.0:15006"))
            .collect();
        node.wait_active(&pod);
        let outside = node.outside();
        let calls = || -> Vec<_> {
            let call = |_| outside.call(&format!("{POD}:8080")).expect("a worker listens").by;
            (0..60).map(call).collect()
        };
        let answers = calls();
        for name in ["first", "second"] {
            assert!(answers.iter().filter(|by| *by == name).count() > 5, "{answers:?}");
        }
        workers.remove(0).close();
        assert!(calls().iter().all(|by| by == "second"));
    }

    fn udp_from_outside_passes(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let _server = pod.app().serve("app", Kind::Udp, &format!("{POD}:5353"));
        let socket = node.outside().socket(Family::V4, Kind::Udp).expect("a socket");
        socket.connect(&format!("{POD}:5353")).expect("UDP always connects");
        socket.send(b"?").expect("it can send");
        assert_eq!(socket.report().expect("an answer").name, "app");
    }
}

fn serve_each(actor: &Actor, ports: &[u16]) -> Vec<Socket> {
    let serve = |port: &u16| {
        actor.serve(
            &format!("port {port}"),
            Kind::Tcp,
            &format!("0.0.0.0:{port}"),
        )
    };
    ports.iter().map(serve).collect()
}

#[track_caller]
fn assert_inbound(client: &Actor, port: u16) {
    let target = format!("{POD}:{port}");
    assert_captured_from(client.call(&target), "inbound", OUTSIDE_V4, &target);
}

#[track_caller]
fn assert_direct(client: &Actor, port: u16) {
    let target = format!("{POD}:{port}");
    assert_straight_from(
        client.call(&target),
        &format!("port {port}"),
        OUTSIDE_V4,
        &target,
    );
}
