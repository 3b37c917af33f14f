//! Steps of arming that fail: nothing is captured in part, the gate stays closed, and it is tried again.

use std::{fs, net::UdpSocket, path::PathBuf, thread, time::Duration};

use sidestep_agent::sandbox::facts;
use sidestep_kernel::netns;
use sidestep_kit::{
    actor::{Actor, Errno, Family, Identity, Kind, Socket},
    needs,
    net::Namespace,
    redirect::{Node, Pod, PodState},
};

use crate::{POD, SERVICE, assert_captured};

const POD6: &str = "fd77::10";

#[needs(root)]
fn a_pod_without_room_for_the_passthrough_address_stays_closed_until_there_is() {
    let node = Node::alone();
    let pod = node.bare_pod("dual-stack", &[POD, POD6]);
    pod.namespace().sysctl("net/ipv6/conf/lo/disable_ipv6", "1");
    let gate = assert_stays_closed(&node, &pod);
    pod.namespace().sysctl("net/ipv6/conf/lo/disable_ipv6", "0");
    assert_opens(&node, &pod, &gate);
}

/// The kernel makes an address the namespace's own when it has time, and silently discards what is sent to it before.
#[needs(root)]
fn a_pods_passthrough_address_is_its_own_once_it_was_given() {
    let busy = Namespace::new("busy");
    thread::scope(|scope| {
        let pods = scope.spawn(|| (0..200).filter(|_| !is_heard_at_once()).count());
        while !pods.is_finished() {
            // This holds the lock that the kernel's work on addresses needs.
            busy.ip("link add x type veth peer name y");
            busy.ip("link delete x");
        }
        let lost = pods.join().expect("namespaces can be made");
        assert_eq!(lost, 0, "of 200 datagrams to ::6");
    });
}

/// Whether a datagram to the address arrives that is sent as soon as a pod has it.
fn is_heard_at_once() -> bool {
    let pod = Namespace::new("pod");
    let namespace = netns::Namespace::open(pod.name()).expect("we made it");
    facts::raise_passthrough6(&namespace).expect("there is IPv6");
    pod.enter(|| {
        let [ear, mouth] = [(); 2].map(|()| UdpSocket::bind("[::]:0").expect("a free port"));
        let port = ear.local_addr().expect("it is bound").port();
        ear.set_read_timeout(Some(Duration::from_secs(1)))
            .expect("a good time");
        let sent = mouth.send_to(b"x", (facts::PASSTHROUGH6, port));
        sent.is_ok() && ear.recv(&mut [0]).is_ok()
    })
}

#[needs(root)]
fn a_pod_whose_inbound_link_cannot_be_pinned_stays_closed_until_it_can() {
    let node = Node::alone();
    let pod = node.bare_pod("client", &[POD]);
    let in_the_way = inbound_pin(&node, &pod);
    fs::create_dir(&in_the_way).expect("the agent's pins");
    let gate = assert_stays_closed(&node, &pod);
    fs::remove_dir(&in_the_way).expect("our own folder");
    assert_opens(&node, &pod, &gate);
}

/// A proxy that calls itself, which is what the gate does, is not redirected while the pod is not armed.
fn assert_stays_closed(node: &Node, pod: &Pod) -> Gate {
    let actor = pod.actor(&Identity::proxy());
    let listeners = [
        actor.serve("outbound", Kind::Tcp, "0.0.0.0:15001"),
        actor.serve("inbound", Kind::Tcp, "0.0.0.0:15006"),
    ];
    node.add_pod_file(pod);
    node.agent()
        .wait_for(pod.name(), |state| state == PodState::Pending);
    let reason = node
        .agent()
        .pod(pod.name())
        .and_then(|status| status.reason);
    assert!(reason.is_some_and(|reason| !reason.is_empty()));
    let itself = actor.call(&format!("{POD}:15002"));
    assert_eq!(itself.err(), Some(Errno::REFUSED));
    Gate {
        actor,
        _listeners: listeners,
    }
}

struct Gate {
    actor: Actor,
    _listeners: [Socket; 2],
}

fn assert_opens(node: &Node, pod: &Pod, gate: &Gate) {
    node.wait_active(pod);
    assert_captured(&gate.actor, "inbound", &format!("{POD}:15002"));
    assert_captured(&pod.app(), "outbound", SERVICE);
    assert_captured(&node.outside(), "inbound", &format!("{POD}:8080"));
}

/// Where the agent will pin the link of this pod's namespace: it is named by the namespace's cookie.
fn inbound_pin(node: &Node, pod: &Pod) -> PathBuf {
    const SO_NETNS_COOKIE: i32 = 71;
    let socket = pod
        .actor(&Identity::app())
        .socket(Family::V4, Kind::Tcp)
        .expect("a socket");
    let cookie = socket
        .option(libc::SOL_SOCKET, SO_NETNS_COOKIE, 8)
        .expect("Linux 5.14 and later");
    let cookie = u64::from_ne_bytes(cookie.try_into().expect("eight bytes"));
    let version = fs::read_dir(node.folders().pins())
        .expect("the agent's pins")
        .flatten()
        .next()
        .expect("a folder for the version");
    version.path().join("pods").join(cookie.to_string())
}
