//! Captured connections take a node's memory: each pod has a share of it, and who takes more harms nobody else.

use std::net::SocketAddr;

use sidestep_ebpf_common::flow::FLOW_SHARE;
use sidestep_kit::{
    actor::{Actor, Errno, Family, Kind, Report, Socket},
    foreign::CallbackEraser,
    needs,
    net::OUTSIDE_V4,
    process::{PATIENCE, eventually},
    redirect::{Node, OpenCount, Pod},
};

use crate::{POD, SERVICE, assert_captured};

const NEIGHBOUR: &str = "10.77.0.11";
const SERVICE_V6: &str = "[fd00:96::7]:80";

#[needs(root, "bpftool")]
fn a_pod_with_all_of_its_share_is_refused_until_it_closes_some_and_others_notice_nothing() {
    let mut node = Node::alone();
    let outside = node.outside();
    let _service = outside.serve("service", Kind::Tcp, "0.0.0.0:80");
    let straight = format!("{OUTSIDE_V4}:80");
    let (greedy, _proxy) = node.pod_with_proxy("dual-stack", &[POD, "fd77::10"]);
    let (neighbour, _other_proxy) = node.pod_with_proxy("dual-stack", &[NEIGHBOUR, "fd77::11"]);
    // The programs do this alone; an agent would see that there are no such connections.
    let count = count_of(&node, &greedy);
    node.take_agent().kill();
    count.set(FLOW_SHARE - 2);
    let app = greedy.app();
    let first = app.connect(SERVICE).expect("there is room");
    let second = app.connect(SERVICE_V6).expect("there is room");
    assert_eq!(count.get(), FLOW_SHARE);
    for destination in [SERVICE, SERVICE_V6, "[::ffff:10.96.0.7]:80", &straight] {
        let refused = app.connect(destination).err();
        assert_eq!(refused, Some(Errno::NOT_PERMITTED), "{destination}");
    }
    for destination in [SERVICE, SERVICE_V6] {
        assert_captured(&neighbour.app(), "outbound", destination);
        assert_captured(&node.outside(), "inbound", &format!("{POD}:8080"));
    }

    for closed in [first, second] {
        closed.reset();
        for destination in [SERVICE, SERVICE_V6] {
            let has_room = || count.get() < FLOW_SHARE;
            assert!(eventually(PATIENCE, has_room), "{destination}");
            assert_captured(&app, "outbound", destination);
        }
    }
    node.start_agent();
    node.wait_active(&greedy);
    let rows = node.agent().pod(greedy.name()).expect("a known pod").rows;
    assert_eq!(rows.get("out-full"), Some(&4), "{rows:?}");
    let others = node.agent().pod(neighbour.name()).expect("a known pod");
    assert_eq!(others.rows.get("out-full"), None, "{others:?}");
}

/// The bound holds where a connection begins, which may be long after its `connect`.
#[needs(root, "bpftool")]
fn connections_that_were_made_ready_before_the_share_was_used_up_do_not_exceed_it() {
    let mut node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    // Clients without a cookie send data with the first packet.
    pod.namespace().sysctl("net/ipv4/tcp_fastopen", "5");
    let count = count_of(&node, &pod);
    node.take_agent().kill();
    let app = pod.app();
    let ready = |app: &Actor| {
        let socket = app.socket(Family::V4, Kind::Tcp).expect("a socket");
        socket
            .set_option(libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)
            .expect("the kernel knows this");
        socket.connect(SERVICE).expect("nothing is sent yet");
        socket
    };
    let [in_time, late] = [ready(&app), ready(&app)];
    assert_eq!(count.get(), 0, "a connection has begun");
    in_time.send(b"hello").expect("it begins");
    assert_eq!(original(&in_time), SERVICE.parse().expect("an address"));

    count.set(FLOW_SHARE);
    late.send(b"hello").expect("it begins");
    // Envoy closes what was for its own port.
    let original = original(&late);
    assert!(
        original.ip().is_loopback() && original.port() == 15001,
        "{original}"
    );
    assert_eq!(count.get(), FLOW_SHARE);
    late.close();
    assert_eq!(count.get(), FLOW_SHARE);
}

#[needs(root, "bpftool")]
fn a_wrong_count_is_corrected() {
    let node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("client", &[POD]);
    let count = count_of(&node, &pod);
    let app = pod.app();
    let held = app.connect(SERVICE).expect("there is room");
    count.set(FLOW_SHARE + 5);
    node.agent()
        .wait("the count to be right", || count.get() == 1);
    assert_captured(&app, "outbound", SERVICE);
    drop(held);
    node.agent()
        .wait("the end of all connections", || count.get() == 0);
}

/// Another program takes the callback away that tells of the end.
#[needs(root, "bpftool")]
fn connections_that_ended_unseen_are_forgotten_and_open_ones_are_not() {
    let node = Node::alone();
    let (pod, _proxy) = node.pod_with_proxy("dual-stack", &[POD, "fd77::10"]);
    let count = count_of(&node, &pod);
    let app = pod.app();
    let eraser = CallbackEraser::attach(node.cgroup());
    let held: Vec<Socket> = [SERVICE, SERVICE_V6, "[::ffff:10.96.0.7]:80"]
        .map(|destination| app.connect(destination).expect("the proxy listens"))
        .into();
    let services = [SERVICE, SERVICE_V6].map(ToOwned::to_owned);
    let load = app.connect_many(&services, 100);
    assert!(load.failed.is_empty(), "{load:?}");
    drop(eraser);
    assert_eq!((count.get(), node.entries(&["FLOWS"])), (103, 103));

    // As if it had many more: those of a pod with few are let be.
    count.set(FLOW_SHARE);
    node.agent()
        .wait("the count to be right", || count.get() == 3);
    assert_eq!(node.entries(&["FLOWS"]), 3);
    for socket in &held {
        socket.report().expect("an open connection");
    }
    assert_captured(&app, "outbound", SERVICE);
}

/// What the proxy was told, by its answer; behind that it may have echoed something already.
fn original(socket: &Socket) -> SocketAddr {
    let answer = socket.receive().expect("an answer");
    let mut values = serde_json::Deserializer::from_slice(&answer).into_iter::<Report>();
    let report = values.next().expect("a report").expect("a report");
    report.original.expect("an address")
}

fn count_of(node: &Node, pod: &Pod) -> OpenCount {
    let known = node.agent().pod(pod.name()).expect("a known pod");
    OpenCount::of(node, known.cookie.expect("an armed pod"))
}
