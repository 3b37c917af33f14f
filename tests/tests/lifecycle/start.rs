//! The first moments of a pod.

use std::time::{Duration, Instant};

use sidestep_kit::{
    actor::{Actor, Errno, Identity, Kind, Seen, Socket},
    needs,
    net::OUTSIDE_V4,
    process::PATIENCE,
    redirect::{Node, Pod},
};

use crate::{POD, SERVICE, assert_captured, assert_straight};

/// As Istio's `istio-init --run-validation`: it listens once, on both ports, and calls itself until it is redirected.
struct Gate {
    actor: Actor,
    _listeners: [Socket; 2],
}

impl Gate {
    fn open(pod: &Pod) -> Self {
        let actor = pod.actor(&Identity::proxy());
        let listeners = [
            actor.serve("gate", Kind::Mptcp, "127.0.0.1:15001"),
            actor.serve("gate", Kind::Mptcp, "127.0.0.1:15006"),
        ];
        Self {
            actor,
            _listeners: listeners,
        }
    }

    fn wait(&self, pod: &Pod) -> Seen {
        let own = format!("{}:15002", pod.address());
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.actor.call(&own) {
                Ok(seen) => return seen,
                Err(Errno::REFUSED) => assert!(Instant::now() < deadline, "the gate stays closed"),
                Err(errno) => panic!("the gate's call: {errno}"),
            }
        }
    }
}

#[needs(root)]
fn the_first_request_of_a_pod_never_fails() {
    let node = Node::alone();
    for round in 1..=20 {
        let address = format!("10.77.3.{round}");
        let pod = node.bare_pod("client", &[&address]);
        // The agent hears of the pod, and the gate opens, in either order.
        let gate = if round % 2 == 0 {
            node.add_pod_file(&pod);
            Gate::open(&pod)
        } else {
            let gate = Gate::open(&pod);
            node.add_pod_file(&pod);
            gate
        };
        let seen = gate.wait(&pod);
        assert_eq!(seen.by, "gate");
        assert_eq!(
            seen.original,
            Ok(format!("{address}:15002").parse().expect("an address"))
        );
        drop(gate);

        // From now on nothing gets around the proxy, which does not listen yet.
        let app = pod.app();
        let _listener = app.serve("app", Kind::Tcp, "0.0.0.0:8080");
        let own = format!("{address}:8080");
        assert_eq!(app.call(SERVICE).err(), Some(Errno::REFUSED));
        assert_eq!(node.outside().call(&own).err(), Some(Errno::REFUSED));

        let _proxy = pod.proxy();
        assert_captured(&app, "outbound", SERVICE);
        assert_captured(&node.outside(), "inbound", &own);
    }
}

#[needs(root)]
fn user_init_containers_before_the_gate_run_uncaptured() {
    let node = Node::alone();
    let outside = node.outside();
    let _service = outside.serve("service", Kind::Tcp, "0.0.0.0:80");
    let pod = node.pod("client", &[POD]);
    let app = pod.app();
    assert_straight(&app, "service", &format!("{OUTSIDE_V4}:80"));

    let _proxy = pod.proxy();
    node.wait_active(&pod);
    assert_captured(&app, "outbound", &format!("{OUTSIDE_V4}:80"));
}

#[needs(root)]
fn listeners_of_others_on_the_proxys_ports_do_not_activate_a_pod() {
    let node = Node::alone();
    let outside = node.outside();
    let _service = outside.serve("service", Kind::Tcp, "0.0.0.0:80");
    let pod = node.pod("client", &[POD]);
    let app = pod.app();
    let _mine = app.serve("app", Kind::Tcp, "0.0.0.0:15006");
    assert_straight(&app, "service", &format!("{OUTSIDE_V4}:80"));
}

#[needs(root)]
fn a_pod_whose_proxy_has_listened_for_three_seconds_is_captured_when_the_agent_starts() {
    let node = Node::without_agent();
    let pod = node.bare_pod("client", &[POD]);
    let _proxy = pod.proxy();
    let app = pod.app();
    let _listener = app.serve("app", Kind::Tcp, "0.0.0.0:8080");
    std::thread::sleep(Duration::from_secs(3));
    node.start_agent();
    node.add_pod_file(&pod);
    node.wait_active(&pod);
    assert_captured(&app, "outbound", SERVICE);
    assert_captured(&node.outside(), "inbound", &format!("{POD}:8080"));
}

#[needs(root)]
fn a_gate_that_has_listened_before_the_agent_started_opens() {
    let node = Node::without_agent();
    let pod = node.bare_pod("client", &[POD]);
    let gate = Gate::open(&pod);
    node.add_pod_file(&pod);
    node.start_agent();
    assert_eq!(gate.wait(&pod).by, "gate");
}
