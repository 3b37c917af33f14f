//! Two sidecars of one node: their bytes miss the way between the pods, and whoever watches it.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use sidestep_agent::shortcut::{Allowed, Options, Reach};
use sidestep_ebpf_common::shortcut::Count;
use sidestep_kit::{
    actor::{Actor, Family, Identity, Kind, sys},
    needs,
};

use crate::stage::{ADDRESSES, Ends, NODE, Stage, carries, connect, gets, warm};

#[needs(root)]
fn a_way_that_is_cut_between_two_pods_is_noticed() {
    let options = Options {
        keepalive: 1,
        keepalive_interval: 1,
        ..Options::default()
    };
    let stage = Stage::with(Some(options), NODE, Kind::Tcp);
    let ends = stage.proxy_to_proxy();
    warm(&stage, &ends);
    stage.pods[1].namespace.ip("link set eth0 down");
    let cut = Instant::now();
    // The bytes themselves do not miss the way.
    carries(&ends.near, &ends.far, "still");
    // As an event loop does: such a socket may be woken for nothing.
    let end = loop {
        match (&ends.near).read(&mut [0; 16]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(cut.elapsed() < Duration::from_secs(25), "nobody notices");
            }
            other => break other.map_err(|error| error.kind()),
        }
    };
    assert!(
        matches!(end, Err(ErrorKind::TimedOut | ErrorKind::HostUnreachable)),
        "{end:?}"
    );
}

#[needs(root)]
fn both_ends_between_two_pods_are_kept_alive_within_five_minutes() {
    let stage = Stage::new();
    let between = stage.proxy_to_proxy();
    for end in [&between.near, &between.far] {
        assert_eq!(option(end, libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
        assert!(option(end, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) <= 300);
    }
    let within = stage.app_to_proxy();
    assert_eq!(
        option(&within.near, libc::SOL_SOCKET, libc::SO_KEEPALIVE),
        0
    );
}

fn option(socket: &TcpStream, level: i32, name: i32) -> i32 {
    let mut value = [0; 4];
    sys::option(socket.as_fd(), level, name, &mut value).expect("an open socket");
    i32::from_ne_bytes(value)
}

#[needs(root)]
fn either_pod_can_stop_what_is_between_two() {
    let mut stage = Stage::new();
    for pod in [0, 1] {
        let ends = stage.proxy_to_proxy();
        warm(&stage, &ends);
        (&ends.near).write_all(b"unread;").expect("there is room");
        stage.allow(
            pod,
            Allowed {
                reach: Reach::Pod,
                ..NODE
            },
        );
        let before = stage.counted(Count::Redirected);
        (&ends.near).write_all(b"by TCP").expect("there is room");
        gets(&ends.far, "unread;by TCP");
        assert_eq!(stage.counted(Count::Redirected), before);
        stage.allow(pod, NODE);
    }
}

/// A pod may give itself any address and any proxy's port. Nobody else's bytes get there, and none of its own elsewhere.
#[needs(root)]
fn a_pod_that_takes_others_addresses_gets_none_of_their_bytes() {
    let mut stage = Stage::new();
    let victim = stage.proxy_to_proxy();
    let port = victim.near.local_addr().expect("an open socket").port();

    let hostile = stage.hostile("10.77.0.12");
    for address in ADDRESSES {
        hostile
            .namespace
            .ip(&format!("addr add {address}/32 dev lo"));
    }
    let socket = hostile
        .proxy
        .socket(Family::V4, Kind::Tcp)
        .expect("a socket");
    socket
        .bind(&format!("{}:{port}", ADDRESSES[0]))
        .expect("an address of its own");
    let before = stage.ends();
    socket
        .connect(&format!("{}:15006", ADDRESSES[1]))
        .expect("it listens itself");
    let (accepted, _) = hostile.inbound.accept().expect("its own connection");
    assert_eq!(
        stage.ends(),
        before,
        "its sockets take part under others' addresses"
    );
    socket.send(b"forged").expect("there is room");
    assert_eq!(accepted.receive().expect("it arrives"), b"forged");

    warm(&stage, &victim);
    carries(&victim.far, &victim.near, "the victim's own");
}

/// The agent publishes what it finds on a pod's interfaces. Of an address that two have it says nothing.
#[needs(root)]
fn an_address_that_two_pods_claim_keeps_its_connections_on_tcp() {
    let mut stage = Stage::new();
    let hostile = stage.hostile(ADDRESSES[1]);
    let redirected = stage.counted(Count::Redirected);
    let ends = stage.proxy_to_proxy();
    carries(&ends.near, &ends.far, "by TCP");
    carries(&ends.far, &ends.near, "as well");
    assert_eq!(stage.counted(Count::Redirected), redirected);

    let shortcut = stage.shortcut.as_mut().expect("programs");
    shortcut
        .dismiss(hostile.participant(NODE).cookie)
        .expect("it took part");
    let ends = stage.proxy_to_proxy();
    warm(&stage, &ends);
}

/// Its user and its group are every program's of the sidecar's container: only who listens for captured connections is the proxy.
#[needs(root)]
fn another_process_of_the_proxys_user_reaches_another_pods_proxy_by_tcp() {
    let stage = Stage::new();
    warm(&stage, &stage.proxy_to_proxy());
    let beside = Actor::spawn(&stage.pods[0].namespace, &stage.cgroup, &Identity::proxy());
    let others = [&beside, &stage.pods[0].app];
    for other in others {
        let (ends, redirected) = (stage.ends(), stage.counted(Count::Redirected));
        let to = format!("{}:15006", ADDRESSES[1]);
        let Ends { near, far } = connect(other, &to, &stage.pods[1].inbound);
        for _ in 0..3 {
            carries(&near, &far, "by TCP");
            carries(&far, &near, "as well");
        }
        assert_eq!(stage.counted(Count::Redirected), redirected);
        assert_eq!(stage.ends(), ends, "it takes part");
    }
    // The proxy does as before.
    warm(&stage, &stage.proxy_to_proxy());
}
