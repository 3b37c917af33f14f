use sidestep_agent_api::Stage;
use sidestep_ebpf_common::{
    flow::BOUND_BY_US,
    shortcut::{Queue, SENDS},
};

use super::*;
use crate::{
    probe::policy,
    rules::{Facts, addr, compile},
};

const PROXY: u32 = 1337;
const PROGRAM: u32 = 1000;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A pod at 10.0.0.5 with Istio's usual policy.
fn rules() -> Rules {
    let facts = Facts {
        addresses: vec![at("127.0.0.1:0").ip(), at("10.0.0.5:0").ip()],
        ..Facts::default()
    };
    let rules = compile(&policy(PROXY).expect("a policy"), &facts, 1, false).expect("rules");
    rules.allowing(Allowed {
        reach: Reach::Namespace,
        from_application: true,
        into_application: false,
    })
}

fn connection(uid: u32, local: &str, remote: &str) -> Connection {
    Connection {
        ends: (at(local), at(remote)),
        stage: Stage::Established,
        uid,
        sent: 10,
        received: 20,
        state: None,
        end: None,
    }
}

fn kept(to: &str, flags: u32) -> SockState {
    let to = at(to);
    SockState {
        flags,
        origin: Origin::new(addr(to.ip()), to.port()),
        ..SockState::default()
    }
}

fn end(flags: u32, bytes: u32) -> EndState {
    let mut end = EndState::new(flags);
    end.queue = Queue {
        bytes,
        wraps: u32::from(bytes > 0),
        ..Queue::EMPTY
    };
    end
}

/// An application's connection through its sidecar, both of whose ends are in the pod, and where the sidecar takes it.
fn captured() -> Vec<Connection> {
    let client = Connection {
        state: Some(kept("10.0.0.9:80", BOUND_BY_US)),
        ..connection(PROGRAM, "10.0.0.5:40000", "127.128.1.2:15001")
    };
    let accepted = Connection {
        state: Some(kept("10.0.0.9:80", ACCEPTED)),
        ..connection(PROXY, "127.128.1.2:15001", "10.0.0.5:40000")
    };
    let upstream = connection(PROXY, "10.0.0.5:50000", "10.0.0.9:80");
    vec![upstream, accepted, client]
}

/// A caller from outside, whom the sidecar takes to the application.
fn inbound() -> Vec<Connection> {
    vec![
        connection(PROXY, "10.0.0.5:8080", "10.0.0.9:33333"),
        connection(PROXY, "127.0.0.6:45000", "10.0.0.5:8080"),
        // The application listens on both families.
        connection(
            PROGRAM,
            "[::ffff:10.0.0.5]:8080",
            "[::ffff:127.0.0.6]:45000",
        ),
    ]
}

fn told(connections: Vec<Connection>, shortcut: &ShortcutStatus) -> Vec<Flow> {
    told_with(0, connections, shortcut)
}

/// The same, where the other end of each redirected so many bytes.
fn told_with(
    redirected: u64,
    connections: Vec<Connection>,
    shortcut: &ShortcutStatus,
) -> Vec<Flow> {
    let known = Known {
        rules: &rules(),
        shortcut,
        beside: &|ip| (ip == at("10.0.0.9:0").ip()).then_some(true),
        redirected_by: &|_| redirected,
    };
    let sockets = Sockets {
        connections,
        listening: vec![at("[::]:8080"), at("0.0.0.0:15001"), at("0.0.0.0:15006")],
        more: false,
    };
    known.tell(&sockets).flows
}

fn on() -> ShortcutStatus {
    ShortcutStatus {
        on: true,
        reach: Reach::Node,
        ..ShortcutStatus::default()
    }
}

fn short(flow: &Flow) -> (Side, Direction, Option<&str>, Option<Because>) {
    (flow.of, flow.direction, flow.row.as_deref(), flow.because)
}

#[test]
fn a_captured_connection_is_told_once_with_where_it_wanted_to_go() {
    let flows = told(captured(), &on());
    let [client, upstream] = flows.as_slice() else {
        panic!("{flows:#?}")
    };
    assert_eq!(client.captured_from, Some(at("10.0.0.9:80")));
    let why = Some(Because::NoEnd);
    let want = (Side::Application, Direction::Out, Some("out-12"), why);
    assert_eq!(short(client), want);
    let want = (Side::Proxy, Direction::Out, Some("out-5"), why);
    assert_eq!(short(upstream), want);
    assert_eq!((client.sent.tcp, client.received.tcp), (10, 20));
}

#[test]
fn who_comes_from_outside_is_told_at_the_proxy_and_at_the_application() {
    let flows = told(inbound(), &on());
    let [application, proxy] = flows.as_slice() else {
        panic!("{flows:#?}")
    };
    assert_eq!(application.local, at("10.0.0.5:8080"));
    assert_eq!(application.remote, at("127.0.0.6:45000"));
    let why = Some(Because::NoEnd);
    assert_eq!(
        short(application),
        (Side::Application, Direction::In, None, why)
    );
    assert_eq!(
        short(proxy),
        (Side::Proxy, Direction::In, Some("in-all"), why)
    );
}

#[test]
fn what_goes_past_the_proxy_has_the_row_that_lets_it_pass() {
    let direct = connection(PROGRAM, "127.0.0.1:40000", "127.0.0.1:9000");
    let flows = told(vec![direct], &on());
    let want = (
        Side::Application,
        Direction::Out,
        Some("out-4"),
        Some(Because::Direct),
    );
    assert_eq!(short(&flows[0]), want);
    // It was made before the pod was active: no row of today's explains it.
    let early = connection(PROGRAM, "10.0.0.5:40000", "10.0.0.9:80");
    assert_eq!(told(vec![early], &on())[0].row, None);
}

#[test]
fn what_the_proxy_has_with_itself_is_not_told() {
    let own = [
        connection(PROXY, "127.0.0.1:40000", "127.0.0.1:15000"),
        connection(PROXY, "127.0.0.1:15000", "127.0.0.1:40000"),
    ];
    assert_eq!(told(own.to_vec(), &on()), []);
}

#[test]
fn bytes_past_tcp_are_those_of_both_ends() {
    let mut connections = captured();
    connections[2].end = Some(end(SENDS | HAS_REDIRECTED, 5));
    let flow = &told_with(7, connections, &on())[0];
    assert_eq!((flow.way, flow.because), (Way::Shortcut, None));
    let bytes = |tcp, shortcut| Bytes { tcp, shortcut };
    assert_eq!(flow.sent, bytes(10, (1 << 32) + 5));
    assert_eq!(flow.received, bytes(20, 7));
}

#[test]
fn each_reason_for_tcp_is_told() {
    let client = |shortcut: &ShortcutStatus, end: Option<EndState>| {
        let mut connections = captured();
        connections[2].end = end;
        told(connections, shortcut)[0].because
    };
    let reach = |reach| ShortcutStatus { reach, ..on() };
    let regression = Some("this kernel miscounts".to_owned());
    let applications = ShortcutStatus {
        not_from_applications: regression,
        ..on()
    };
    let mut marked = EndState::new(SENDS);
    marked.hazard = 1;
    for (shortcut, end, want) in [
        (ShortcutStatus::default(), None, Because::Off),
        (reach(Reach::Off), None, Because::Reach),
        (applications, None, Because::Applications),
        (on(), None, Because::NoEnd),
        (on(), Some(end(0, 0)), Because::NoEnd),
        (on(), Some(marked), Because::Hazard),
        (on(), Some(end(SENDS, 0)), Because::NothingYet),
    ] {
        assert_eq!(client(&shortcut, end), Some(want), "{shortcut:?}");
    }

    let upstream = |shortcut: &ShortcutStatus, to: &str| {
        told(vec![connection(PROXY, "10.0.0.5:50000", to)], shortcut)[0].because
    };
    for (shortcut, to, want) in [
        (ShortcutStatus::default(), "10.0.0.9:80", Because::Off),
        (on(), "10.9.9.9:80", Because::Elsewhere),
        (reach(Reach::Pod), "10.0.0.9:80", Because::Reach),
        (on(), "10.0.0.9:80", Because::NoEnd),
    ] {
        assert_eq!(upstream(&shortcut, to), Some(want), "{to}");
    }
}
