//! Pods do not see each other.

use sidestep_kit::{
    actor::{Family, Kind, Socket},
    both_ways,
    net::{Namespace, Network, OUTSIDE_V4, run},
    redirect::{Pod, Redirect},
};

use crate::{POD, assert_captured_from, assert_straight_from};

both_ways! {
    /// As a container engine in a pod does for its own containers: a known difference, for which such pods are left alone.
    fn packets_that_a_pod_forwards_are_inbound_to_iptables_and_nobodys_to_sidestep(node) {
        let _service = node.outside().serve("service", Kind::Tcp, "0.0.0.0:80");
        let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
        let inner = Namespace::new("inner");
        let outer = pod.namespace();
        outer.ip(&format!("link add inner type veth peer name eth0 netns {}", inner.name()));
        outer.ip("addr add 172.30.0.1/24 dev inner");
        outer.ip("link set inner up");
        outer.sysctl("net/ipv4/ip_forward", "1");
        let masquerade = "table ip engine { chain out { type nat hook postrouting priority 100; oifname eth0 masquerade; }; }";
        run(outer.command("nft").arg(masquerade));
        inner.ip("addr add 172.30.0.2/24 dev eth0");
        inner.ip("link set eth0 up");
        inner.ip("route add default via 172.30.0.1");

        let target = format!("{OUTSIDE_V4}:80");
        let seen = node.actor_in(&inner).call(&target);
        match node.redirect() {
            Redirect::Iptables | Redirect::Nftables => {
                assert_captured_from(seen, "inbound", "172.30.0.2", &target);
            }
            Redirect::Sidestep => assert_straight_from(seen, "service", POD, &target),
        }
    }

    fn two_pods_with_equal_addresses_and_ports_do_not_collide(node) {
        let elsewhere = Network::new();
        let pods = [
            node.bare_pod("client", &[POD]),
            node.bare_pod_on(&elsewhere, "client", &[POD]),
        ];
        for pod in &pods {
            node.redirect_pod(pod);
        }
        let proxies = pods.each_ref().map(Pod::proxy);
        for pod in &pods {
            node.wait_active(pod);
        }
        // The same four-tuple twice, once redirected; only the original destinations differ.
        let services = ["10.96.0.7:80", "10.96.0.8:80"];
        let sockets: [Socket; 2] = std::array::from_fn(|n| {
            let socket = pods[n].app().socket(Family::V4, Kind::Tcp).expect("a socket");
            socket.bind(&format!("{POD}:4000")).expect("the pod's address");
            socket.connect(services[n]).expect("the proxy listens");
            socket
        });
        for (socket, service) in sockets.iter().zip(services) {
            assert_captured_from(socket.seen(), "outbound", POD, service);
        }

        proxies[0].kill();
        assert!(pods[0].app().call(services[0]).is_err());
        assert_captured_from(pods[1].app().call(services[0]), "outbound", POD, services[0]);
    }

    fn pods_of_different_policies_each_follow_their_own(node) {
        let service = node.network().host("service", &["10.77.9.1"]);
        let _listener = node.actor_in(&service).serve("service", Kind::Tcp, "0.0.0.0:80");
        let (everything, _one) = node.pod_with_proxy("client", &["10.77.0.11"]);
        let (excluding, _two) = node.pod_with_proxy("exclude", &["10.77.0.12"]);
        let target = "10.77.9.1:80";
        assert_captured_from(everything.app().call(target), "outbound", "10.77.0.11", target);
        assert_straight_from(excluding.app().call(target), "service", "10.77.0.12", target);
    }

    fn a_call_from_pod_to_pod_passes_both_proxies(node) {
        let (client, from) = node.pod_with_proxy("client", &["10.77.0.11"]);
        let (server, _to) = node.pod_with_proxy("server", &["10.77.0.12"]);
        let _listener = server.app().serve("app", Kind::Tcp, "0.0.0.0:8080");
        let target = "10.77.0.12:8080";
        assert_captured_from(client.app().call(target), "outbound", "10.77.0.11", target);
        assert_captured_from(from.actor().call(target), "inbound", "10.77.0.11", target);
    }
}
