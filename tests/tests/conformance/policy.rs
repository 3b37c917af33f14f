//! What policies include and exclude.

use sidestep_kit::{
    actor::{Actor, Identity, Kind, Socket},
    both_ways,
    net::OUTSIDE_V4,
    redirect::Node,
};

use crate::{POD, assert_captured_from, assert_straight_from};

both_ways! {
    fn excluded_outbound_ports_are_reached_directly(node) {
        let service = node.outside();
        let _listeners = serve_each(&service, OUTSIDE_V4, &[5432, 6379]);
        let (pod, _proxy) = node.pod_with_proxy("exclude", &[POD]);
        let app = pod.app();
        assert_direct(&app, &format!("{OUTSIDE_V4}:5432"));
        assert_direct(&app, &format!("{OUTSIDE_V4}:6379"));
        assert_outbound(&app, &format!("{OUTSIDE_V4}:5433"));
    }

    fn excluded_ranges_are_reached_directly_to_their_last_address(node) {
        let service = Neighbour::new(node, &["10.77.9.0", "10.77.9.255", "10.77.8.76", "10.77.8.79"]);
        let (pod, _proxy) = node.pod_with_proxy("exclude", &[POD]);
        let app = pod.app();
        for inside in &service.addresses {
            assert_direct(&app, &format!("{inside}:80"));
        }
        for outside in ["10.77.8.255", "10.77.10.0", "10.77.8.75", "10.77.8.80", "192.0.2.6"] {
            assert_outbound(&app, &format!("{outside}:80"));
        }
    }

    fn only_included_ranges_are_captured(node) {
        let service = node.outside();
        let _listeners = serve_each(&service, OUTSIDE_V4, &[80]);
        let (pod, _proxy) = node.pod_with_proxy("include", &[POD]);
        let app = pod.app();
        assert_direct(&app, &format!("{OUTSIDE_V4}:80"));
        for inside in ["10.77.5.5", "192.0.2.0", "192.0.2.15"] {
            assert_outbound(&app, &format!("{inside}:80"));
        }
    }

    fn included_ports_are_captured_wherever_they_are(node) {
        let (pod, _proxy) = node.pod_with_proxy("include", &[POD]);
        assert_outbound(&pod.app(), &format!("{OUTSIDE_V4}:9443"));
        assert_outbound(&pod.app(), &format!("{OUTSIDE_V4}:15443"));
    }

    fn an_excluded_range_wins_over_included_ports_and_ranges(node) {
        let service = Neighbour::new(node, &["10.77.9.1"]);
        let _secure = serve_each(&service.actor, "10.77.9.1", &[9443]);
        let (pod, _proxy) = node.pod_with_proxy("include", &[POD]);
        assert_direct(&pod.app(), "10.77.9.1:80");
        assert_direct(&pod.app(), "10.77.9.1:9443");
    }

    fn an_included_loopback_range_captures_a_pods_calls_to_itself(node) {
        let (pod, proxy) = node.pod_with_proxy("loopback", &[POD]);
        let app = pod.app();
        let _listeners = serve_each(&app, "0.0.0.0", &[8080]);
        let own = format!("{POD}:8080");
        assert_captured_from(app.call(&own), "outbound", POD, &own);
        assert_captured_from(app.call("127.0.0.2:8080"), "outbound", "127.0.0.1", "127.0.0.2:8080");
        assert_straight_from(app.call("127.0.0.1:8080"), "port 8080", "127.0.0.1", "127.0.0.1:8080");
        assert_captured_from(proxy.actor().call(&own), "inbound", POD, &own);
    }

    fn only_the_listed_groups_are_captured(node) {
        let service = node.outside();
        let _listeners = serve_each(&service, OUTSIDE_V4, &[80]);
        let (pod, _proxy) = node.pod_with_proxy("owner-groups", &[POD]);
        let target = format!("{OUTSIDE_V4}:80");
        assert_outbound(&pod.actor(&Identity::new(1000, 2001)), &target);
        assert_outbound(&pod.actor(&Identity::new(1000, 2002)), &target);
        assert_direct(&pod.actor(&Identity::new(1000, 1000)), &target);
        let supplementary = Identity::new(1000, 1000).with_groups(&[2001]);
        assert_direct(&pod.actor(&supplementary), &target);
    }

    fn excluded_groups_are_not_captured(node) {
        let service = node.outside();
        let _listeners = serve_each(&service, OUTSIDE_V4, &[80]);
        let (pod, _proxy) = node.pod_with_proxy("owner-groups-exclude", &[POD]);
        let target = format!("{OUTSIDE_V4}:80");
        for group in [2001, 2002] {
            assert_direct(&pod.actor(&Identity::new(1000, group)), &target);
        }
        assert_outbound(&pod.app(), &target);
    }

    fn a_pod_that_nobody_redirects_is_left_alone(node) {
        let service = node.outside();
        let _listeners = serve_each(&service, OUTSIDE_V4, &[80]);
        let _redirected = node.pod_with_proxy("client", &["10.77.0.11"]);
        let pod = node.bare_pod("client", &[POD]);
        let _proxy = pod.proxy();
        let app = pod.app();
        let _listeners = serve_each(&app, "0.0.0.0", &[8080]);
        let inbound = format!("{POD}:8080");
        assert_direct(&app, &format!("{OUTSIDE_V4}:80"));
        assert_straight_from(service.call(&inbound), "port 8080", OUTSIDE_V4, &inbound);
    }
}

/// A host on the pods' bridge with these addresses, which answers on port 80.
struct Neighbour {
    addresses: Vec<String>,
    actor: Actor,
    _listener: Vec<Socket>,
    _namespace: sidestep_kit::net::Namespace,
}

impl Neighbour {
    fn new(node: &Node, addresses: &[&str]) -> Self {
        let namespace = node.network().host("service", addresses);
        let actor = node.actor_in(&namespace);
        Self {
            addresses: addresses.iter().map(ToString::to_string).collect(),
            _listener: serve_each(&actor, "0.0.0.0", &[80]),
            actor,
            _namespace: namespace,
        }
    }
}

fn serve_each(actor: &Actor, address: &str, ports: &[u16]) -> Vec<Socket> {
    let serve = |port: &u16| {
        actor.serve(
            &format!("port {port}"),
            Kind::Tcp,
            &format!("{address}:{port}"),
        )
    };
    ports.iter().map(serve).collect()
}

#[track_caller]
fn assert_outbound(app: &Actor, target: &str) {
    assert_captured_from(app.call(target), "outbound", POD, target);
}

#[track_caller]
fn assert_direct(app: &Actor, target: &str) {
    let port = target.rsplit(':').next().expect("a port");
    assert_straight_from(app.call(target), &format!("port {port}"), POD, target);
}
