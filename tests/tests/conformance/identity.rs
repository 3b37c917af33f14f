//! Who the proxy is: the filesystem ids of the socket's creator decide, as they do for iptables.

use sidestep_kit::{
    actor::{Actor, Family, Identity, Kind},
    both_ways,
    net::OUTSIDE_V4,
    redirect::Node,
};

use crate::{POD, SERVICE, assert_captured_from, assert_straight_from};

both_ways! {
    fn a_proxy_as_user_0_and_group_1337_is_the_proxy(node) {
        let (pod, proxy) = pod_with_root_proxy(node);
        let _listener = pod.app().serve("app", Kind::Tcp, "0.0.0.0:8080");
        let service = node.outside();
        let _service = service.serve("service", Kind::Tcp, "0.0.0.0:80");
        let own = format!("{POD}:8080");
        let target = format!("{OUTSIDE_V4}:80");
        assert_captured_from(pod.app().call(SERVICE), "outbound", POD, SERVICE);
        assert_captured_from(service.call(&own), "inbound", OUTSIDE_V4, &own);
        assert_straight_from(proxy.actor().call(&target), "service", POD, &target);
        // Row 4 comes before the rows for groups: for a call within the pod such a proxy is one of many users.
        assert_straight_from(proxy.actor().call(&own), "app", POD, &own);
    }

    fn the_root_user_without_the_proxys_group_is_not_the_proxy(node) {
        let (pod, _proxy) = pod_with_root_proxy(node);
        assert_outbound(&pod.actor(&Identity::new(0, 0)));
    }

    fn an_application_with_the_proxys_user_or_group_is_the_proxy(node) {
        let pod = pod_and_service(node);
        assert_direct(&pod.actor(&Identity::new(1337, 1000)));
        assert_direct(&pod.actor(&Identity::new(1000, 1337)));
    }

    fn a_supplementary_group_makes_no_proxy(node) {
        let pod = pod_and_service(node);
        assert_outbound(&pod.actor(&Identity::app().with_groups(&[1337])));
    }

    fn a_setuid_program_is_who_it_acts_as(node) {
        let pod = pod_and_service(node);
        assert_direct(&pod.actor(&Identity::app().acting_as(1337)));
        assert_outbound(&pod.actor(&Identity::new(1337, 1000).acting_as(1000)));
    }

    fn a_setgid_program_is_of_the_group_it_acts_as(node) {
        let pod = pod_and_service(node);
        assert_direct(&pod.actor(&Identity::app().acting_as_group(1337)));
        assert_outbound(&pod.actor(&Identity::new(1000, 1337).acting_as_group(1000)));
    }

    fn a_socket_is_its_creators_whoever_connects_it(node) {
        let pod = pod_and_service(node);
        let root = pod.actor(&Identity::new(0, 0));
        let socket = root.socket(Family::V4, Kind::Tcp).expect("a socket");
        root.become_user(&Identity::proxy());
        socket.connect(SERVICE).expect("the proxy listens");
        assert_captured_from(socket.seen(), "outbound", POD, SERVICE);
        assert_direct(&root);
    }

    fn another_user_than_1337_may_be_the_proxy(node) {
        let pod = node.pod("other-uid", &[POD]);
        let proxy = pod.proxy_as(&Identity::new(2102, 2102));
        node.wait_active(&pod);
        let own = format!("{POD}:8080");
        assert_captured_from(proxy.actor().call(&own), "inbound", POD, &own);
        assert_outbound(&pod.actor(&Identity::new(1337, 1337)));
    }
}

fn pod_with_root_proxy(
    node: &Node,
) -> (sidestep_kit::redirect::Pod, sidestep_kit::redirect::Proxy) {
    let pod = node.pod("uid0", &[POD]);
    let proxy = pod.proxy_as(&Identity::new(0, 1337));
    node.wait_active(&pod);
    (pod, proxy)
}

/// A pod with its proxy, and a service outside.
struct PodAndService {
    pod: sidestep_kit::redirect::Pod,
    _proxy: sidestep_kit::redirect::Proxy,
    _service: sidestep_kit::actor::Socket,
}

impl PodAndService {
    fn actor(&self, identity: &Identity) -> Actor {
        self.pod.actor(identity)
    }
}

fn pod_and_service(node: &Node) -> PodAndService {
    let service = node.outside().serve("service", Kind::Tcp, "0.0.0.0:80");
    let (pod, proxy) = node.pod_with_proxy("client", &[POD]);
    PodAndService {
        pod,
        _proxy: proxy,
        _service: service,
    }
}

#[track_caller]
fn assert_outbound(actor: &Actor) {
    let target = format!("{OUTSIDE_V4}:80");
    assert_captured_from(actor.call(&target), "outbound", POD, &target);
}

#[track_caller]
fn assert_direct(actor: &Actor) {
    let target = format!("{OUTSIDE_V4}:80");
    assert_straight_from(actor.call(&target), "service", POD, &target);
}
