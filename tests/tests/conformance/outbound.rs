//! Connections that start in the pod, with the default policy.

use sidestep_kit::{
    actor::{Family, Kind},
    both_ways,
    net::OUTSIDE_V4,
};

use crate::{POD, SERVICE, assert_captured_from, assert_straight_from};

both_ways! {
    fn an_application_that_calls_a_service_reaches_the_outbound_port(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        assert_captured_from(pod.app().call(SERVICE), "outbound", POD, SERVICE);
    }

    fn the_proxy_that_calls_a_service_reaches_it(node) {
        let service = node.outside();
        let _listener = service.serve("service", Kind::Tcp, "0.0.0.0:80");
        let (_pod, proxy) = node.pod_with_proxy("client", &[POD]);
        let target = format!("{OUTSIDE_V4}:80");
        assert_straight_from(proxy.actor().call(&target), "service", POD, &target);
    }

    fn the_proxy_that_calls_its_own_pods_address_reaches_the_inbound_port(node) {
        let (pod, proxy) = node.pod_with_proxy("client", &[POD]);
        let _listener = pod.app().serve("app", Kind::Tcp, "0.0.0.0:8080");
        let own = format!("{POD}:8080");
        assert_captured_from(proxy.actor().call(&own), "inbound", POD, &own);
    }

    fn an_application_that_calls_its_own_pods_address_reaches_itself(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let app = pod.app();
        let _listener = app.serve("app", Kind::Tcp, "0.0.0.0:8080");
        let own = format!("{POD}:8080");
        assert_straight_from(app.call(&own), "app", POD, &own);
    }

    fn an_application_that_calls_localhost_reaches_itself(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let app = pod.app();
        let _listener = app.serve("app", Kind::Tcp, "0.0.0.0:8080");
        assert_straight_from(app.call("127.0.0.1:8080"), "app", "127.0.0.1", "127.0.0.1:8080");
    }

    fn the_proxy_that_calls_localhost_reaches_the_application(node) {
        let (pod, proxy) = node.pod_with_proxy("client", &[POD]);
        let _listener = pod.app().serve("app", Kind::Tcp, "0.0.0.0:8080");
        assert_straight_from(proxy.actor().call("127.0.0.1:8080"), "app", "127.0.0.1", "127.0.0.1:8080");
    }

    fn the_address_zero_means_localhost(node) {
        let (pod, proxy) = node.pod_with_proxy("client", &[POD]);
        let app = pod.app();
        let _listener = app.serve("app", Kind::Tcp, "0.0.0.0:8080");
        for actor in [&app, proxy.actor()] {
            let seen = actor.call("0.0.0.0:8080").expect("the application answers");
            assert_eq!(seen.by, "app");
            assert_eq!(seen.local.to_string(), "127.0.0.1:8080");
        }
    }

    fn an_application_that_calls_another_loopback_address_reaches_itself(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let app = pod.app();
        let _listener = app.serve("app", Kind::Tcp, "0.0.0.0:8080");
        assert_straight_from(app.call("127.0.0.2:8080"), "app", "127.0.0.1", "127.0.0.2:8080");
    }

    fn the_proxy_that_calls_another_loopback_address_reaches_the_inbound_port(node) {
        let (pod, proxy) = node.pod_with_proxy("client", &[POD]);
        let _listener = pod.app().serve("app", Kind::Tcp, "0.0.0.0:8080");
        assert_captured_from(
            proxy.actor().call("127.0.0.2:8080"),
            "inbound",
            "127.0.0.1",
            "127.0.0.2:8080",
        );
    }

    fn the_proxy_bound_to_127_0_0_6_reaches_the_application(node) {
        let (pod, proxy) = node.pod_with_proxy("client", &[POD]);
        let _listener = pod.app().serve("app", Kind::Tcp, "0.0.0.0:8080");
        let socket = proxy.actor().socket(Family::V4, Kind::Tcp).expect("a socket");
        socket.bind("127.0.0.6:0").expect("a local address");
        let own = format!("{POD}:8080");
        socket.connect(&own).expect("the application listens");
        assert_straight_from(socket.seen(), "app", "127.0.0.6", &own);
    }

    fn the_proxy_that_calls_its_own_tunnel_port_reaches_it(node) {
        let (_pod, proxy) = node.pod_with_proxy("client", &[POD]);
        let _tunnel = proxy.actor().serve("tunnel", Kind::Tcp, "0.0.0.0:15008");
        let own = format!("{POD}:15008");
        assert_straight_from(proxy.actor().call(&own), "tunnel", POD, &own);
    }

    fn an_application_that_calls_the_outbound_port_itself_reaches_it(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        assert_straight_from(pod.app().call("127.0.0.1:15001"), "outbound", "127.0.0.1", "127.0.0.1:15001");
    }

    fn udp_passes(node) {
        let service = node.outside();
        let _listener = service.serve("service", Kind::Udp, &format!("{OUTSIDE_V4}:53"));
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let socket = pod.app().socket(Family::V4, Kind::Udp).expect("a socket");
        socket.connect(&format!("{OUTSIDE_V4}:53")).expect("UDP always connects");
        socket.send(b"?").expect("it can send");
        assert_eq!(socket.report().expect("an answer").name, "service");
    }

    fn many_connections_at_once_each_keep_their_destination(node) {
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let app = pod.app();
        let targets: Vec<_> = (1..=200).map(|n| format!("10.96.1.{n}:80")).collect();
        let open: Vec<_> = targets.iter().map(|target| app.connect(target).expect("the proxy listens")).collect();
        for (socket, target) in open.iter().zip(&targets) {
            assert_captured_from(socket.seen(), "outbound", POD, target);
        }
    }
}
