//! What a hostile review of the first design found, one test each, and what else two sockets can do to each other.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::{AsFd, AsRawFd},
    thread,
    time::{Duration, Instant},
};

use sidestep_agent::shortcut::{Allowed, Options, Reach};
use sidestep_ebpf_common::shortcut::Count;
use sidestep_tests::{
    actor::{Actor, Errno, Family, Identity, Kind, sys},
    can_run,
    net::{OUTSIDE_V4, ROUTER_V4},
};

use crate::stage::{ADDRESSES, Ends, NODE, Stage, carries, connect, gets, warm};

/// Go's servers listen so.
#[test]
fn an_application_that_listens_with_mptcp_is_served() {
    if !can_run(&[]) {
        return;
    }
    let stage = Stage::with(Some(Options::default()), NODE, Kind::Mptcp);
    for _ in 0..20 {
        let Ends { near, far } = stage.proxy_to_app();
        for _ in 0..3 {
            carries(&near, &far, "a request");
            carries(&far, &near, "an answer");
        }
    }
    assert!(
        stage.counted(Count::Redirected) >= 20,
        "plain connections of an MPTCP listener do not take part"
    );
}

#[test]
fn what_is_mptcp_at_both_ends_goes_by_tcp() {
    if !can_run(&[]) {
        return;
    }
    let stage = Stage::new();
    let listener = stage.pods[0]
        .proxy
        .listen_as(Kind::Mptcp, "127.0.0.2:15001");
    let client = stage.pods[0].app.socket(Family::V4, Kind::Mptcp);
    let client = client.expect("a socket");
    client.connect("127.0.0.2:15001").expect("a listener");
    let (server, _) = listener.accept().expect("a connection");
    for (from, to) in [(&client, &server), (&server, &client)] {
        from.send(b"as before").expect("there is room");
        assert_eq!(to.receive().expect("it arrives"), b"as before");
    }
    assert_eq!(stage.counted(Count::Redirected), 0);
}

/// Words of four bytes that hold their own position.
fn words(count: u32) -> Vec<u8> {
    (0..count).flat_map(u32::to_be_bytes).collect()
}

const WORDS: u32 = 1 << 19;

/// Sends all of it in small messages, and ends.
fn pour(mut to: &TcpStream) {
    for message in words(WORDS).chunks(4096) {
        to.write_all(message).expect("somebody reads");
    }
    to.shutdown(Shutdown::Write).expect("an open socket");
}

fn into_the_application() -> Stage {
    let allowed = Allowed {
        into_application: true,
        ..NODE
    };
    Stage::with(Some(Options::default()), allowed, Kind::Tcp)
}

#[test]
fn an_application_that_waits_for_all_it_asked_for_reads_it_in_order() {
    if !can_run(&[]) {
        return;
    }
    let stage = into_the_application();
    let Ends { near, far } = stage.proxy_to_app();
    thread::scope(|scope| {
        scope.spawn(|| pour(&near));
        let mut got = vec![0; words(WORDS).len()];
        for part in got.chunks_mut(300_000) {
            assert_eq!(wait_all(&far, part), part.len());
        }
        assert!(got == words(WORDS), "in another order");
    });
}

fn wait_all(from: &TcpStream, buffer: &mut [u8]) -> usize {
    let at = buffer.as_mut_ptr().cast();
    // SAFETY: the buffer is as long as given.
    let got = unsafe { libc::recv(from.as_raw_fd(), at, buffer.len(), libc::MSG_WAITALL) };
    usize::try_from(got).unwrap_or_else(|_| panic!("{}", Errno::last()))
}

#[test]
fn an_application_that_splices_reads_in_order() {
    if !can_run(&[]) {
        return;
    }
    let stage = into_the_application();
    let Ends { near, far } = stage.proxy_to_app();
    let (mut pipe, end) = std::io::pipe().expect("a pipe");
    thread::scope(|scope| {
        scope.spawn(|| pour(&near));
        let carried = scope.spawn(move || splice(&far, &end));
        let mut got = Vec::new();
        pipe.read_to_end(&mut got).expect("a pipe of ours");
        carried.join().expect("no panic");
        assert!(got == words(WORDS), "in another order, or not all");
    });
}

fn splice(from: &TcpStream, to: &impl AsRawFd) {
    let none = std::ptr::null_mut();
    loop {
        let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
        // SAFETY: two open descriptors, and no offsets.
        match unsafe { libc::splice(from, none, to, none, 64 << 10, 0) } {
            0 => return,
            1.. => {}
            _ => panic!("splice: {}", Errno::last()),
        }
    }
}

#[test]
fn a_way_that_is_cut_between_two_pods_is_noticed() {
    if !can_run(&[]) {
        return;
    }
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

#[test]
fn both_ends_between_two_pods_are_kept_alive_within_five_minutes() {
    if !can_run(&[]) {
        return;
    }
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

#[test]
fn either_pod_can_stop_what_is_between_two() {
    if !can_run(&[]) {
        return;
    }
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
#[test]
fn a_pod_that_takes_others_addresses_gets_none_of_their_bytes() {
    if !can_run(&[]) {
        return;
    }
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
#[test]
fn an_address_that_two_pods_claim_keeps_its_connections_on_tcp() {
    if !can_run(&[]) {
        return;
    }
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

/// A protocol over unread bytes would take them for bytes that it has checked.
#[test]
fn an_upper_layer_protocol_at_either_end_keeps_the_connection_on_tcp() {
    if !can_run(&[]) {
        return;
    }
    let stage = Stage::new();
    for at_near in [true, false] {
        let ends = stage.app_to_proxy();
        warm(&stage, &ends);
        let end = if at_near { &ends.near } else { &ends.far };
        // Where the kernel has none the call fails, which is later than what is tried here.
        let _unknown = set_protocol(end);
        let before = stage.counted(Count::Redirected);
        carries(&ends.near, &ends.far, "by TCP");
        carries(&ends.far, &ends.near, "as well");
        assert_eq!(stage.counted(Count::Redirected), before);
    }
}

#[test]
fn an_upper_layer_protocol_over_unread_bytes_is_refused() {
    if !can_run(&[]) {
        return;
    }
    let stage = Stage::new();
    let ends = stage.app_to_proxy();
    warm(&stage, &ends);
    (&ends.near)
        .write_all(b"in the clear")
        .expect("there is room");
    assert_eq!(set_protocol(&ends.far), Err(Errno(libc::EOPNOTSUPP)));
    gets(&ends.far, "in the clear");
    assert_ne!(set_protocol(&ends.far), Err(Errno(libc::EOPNOTSUPP)));
}

fn set_protocol(socket: &TcpStream) -> Result<(), Errno> {
    const TCP_ULP: i32 = 31;
    sys::set_option(socket.as_fd(), libc::IPPROTO_TCP, TCP_ULP, b"none")
}

#[test]
fn a_reader_who_waits_for_more_than_a_byte_is_left_to_tcp() {
    if !can_run(&[]) {
        return;
    }
    let stage = Stage::new();
    let ends = stage.app_to_proxy();
    warm(&stage, &ends);
    set(&ends.far, libc::SO_RCVLOWAT, 1000).expect("an option of every socket");
    let before = stage.counted(Count::Redirected);
    let message = "m".repeat(1000);
    carries(&ends.near, &ends.far, &message);
    assert_eq!(stage.counted(Count::Redirected), before);
}

#[test]
fn an_end_that_sends_cannot_have_zero_copy() {
    if !can_run(&[]) {
        return;
    }
    let stage = Stage::new();
    let ends = stage.app_to_proxy();
    assert_eq!(
        set(&ends.near, libc::SO_ZEROCOPY, 1),
        Err(Errno(libc::EOPNOTSUPP)),
        "nobody would ever tell it that a message is done"
    );
    // One that has it already is no end.
    let app = &stage.pods[0].app;
    let socket = app.socket(Family::V4, Kind::Tcp).expect("a socket");
    socket
        .set_option(libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)
        .expect("a plain socket");
    socket.connect("127.0.0.1:15001").expect("a listener");
    let (proxy, _) = stage.pods[0].outbound.accept().expect("a connection");
    let before = stage.counted(Count::Redirected);
    for _ in 0..3 {
        socket.send(b"as before").expect("there is room");
        assert_eq!(proxy.receive().expect("it arrives"), b"as before");
    }
    assert_eq!(stage.counted(Count::Redirected), before);
}

fn set(socket: &TcpStream, name: i32, value: i32) -> Result<(), Errno> {
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, name, &value.to_ne_bytes())
}

/// The known differences from TCP: if one goes, the documents should say so.
#[test]
fn who_closes_with_unread_bytes_ends_the_stream_and_does_not_reset_it() {
    if !can_run(&[]) {
        return;
    }
    let stage = Stage::new();
    let ends = stage.app_to_proxy();
    warm(&stage, &ends);
    (&ends.near)
        .write_all(b"never read")
        .expect("there is room");
    drop(ends.far);
    assert_eq!(
        (&ends.near)
            .read(&mut [0; 16])
            .expect("an end, not a reset"),
        0
    );

    let plain = Stage::with(None, NODE, Kind::Tcp).app_to_proxy();
    (&plain.near)
        .write_all(b"never read")
        .expect("there is room");
    gets(&plain.far, "never");
    drop(plain.far);
    let reset = (&plain.near)
        .read(&mut [0; 16])
        .map_err(|error| error.kind());
    assert_eq!(reset, Err(ErrorKind::ConnectionReset));
}

#[test]
fn urgent_bytes_arrive_in_line() {
    if !can_run(&[]) {
        return;
    }
    let stage = Stage::new();
    let ends = stage.app_to_proxy();
    warm(&stage, &ends);
    let sent = send_urgent(&ends.near, b"abcX");
    assert_eq!(sent, 4);
    gets(&ends.far, "abcX");
    carries(&ends.near, &ends.far, "and on");
}

fn send_urgent(to: &TcpStream, bytes: &[u8]) -> isize {
    // SAFETY: the bytes are as many as given.
    unsafe {
        libc::send(
            to.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_OOB,
        )
    }
}

#[test]
fn sendfile_and_messages_in_parts_arrive_as_they_are() {
    if !can_run(&[]) {
        return;
    }
    let stage = Stage::new();
    let ends = stage.app_to_proxy();
    warm(&stage, &ends);
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(&words(WORDS)).expect("a file of ours");
    thread::scope(|scope| {
        scope.spawn(|| send_file(&file, &ends.near));
        let mut got = vec![0; words(WORDS).len()];
        (&ends.far).read_exact(&mut got).expect("it arrives");
        assert!(got == words(WORDS), "other bytes, or in another order");
    });
    for (part, more) in [("three ", true), ("parts, ", true), ("one text", false)] {
        let flags = if more { libc::MSG_MORE } else { 0 };
        let (at, length) = (part.as_ptr().cast(), part.len());
        // SAFETY: the text is as long as given.
        let sent = unsafe { libc::send(ends.near.as_raw_fd(), at, length, flags) };
        assert_eq!(usize::try_from(sent), Ok(length));
    }
    gets(&ends.far, "three parts, one text");
}

fn send_file(file: &File, to: &TcpStream) {
    let size = file.metadata().expect("a file of ours").len();
    let mut offset = 0;
    while u64::try_from(offset).expect("not negative") < size {
        let (to, from) = (to.as_raw_fd(), file.as_raw_fd());
        // SAFETY: two open descriptors and a valid offset.
        let sent = unsafe { libc::sendfile(to, from, &raw mut offset, 1 << 20) };
        assert!(sent > 0, "sendfile: {}", Errno::last());
    }
}

#[test]
fn every_family_takes_part() {
    if !can_run(&[]) {
        return;
    }
    let stage = Stage::new();
    for to in [
        "127.0.0.1:15001",
        "[::1]:15001",
        "[::ffff:127.0.0.1]:15001",
        "127.128.3.4:15001",
    ] {
        let ends = connect(&stage.pods[0].app, to, &stage.pods[0].outbound);
        warm(&stage, &ends);
        carries(&ends.far, &ends.near, to);
    }
}

#[test]
fn connections_with_one_end_elsewhere_do_not_take_part() {
    if !can_run(&[]) {
        return;
    }
    let stage = Stage::new();
    let proxy = &stage.pods[0].proxy;
    let outside = Actor::spawn(stage.network.outside(), &stage.cgroup, &Identity::new(0, 0));
    let listener = outside.listen(&format!("{OUTSIDE_V4}:80"));
    let far = connect(proxy, &format!("{OUTSIDE_V4}:80"), &listener);
    let router = Actor::spawn(stage.network.router(), &stage.cgroup, &Identity::new(0, 0));
    let from_elsewhere = connect(
        &router,
        &format!("{}:15006", ADDRESSES[0]),
        &stage.pods[0].inbound,
    );
    // What is not the proxy's business at all.
    let own = stage.pods[0].app.listen("127.0.0.1:9090");
    let among_applications = connect(&stage.pods[0].app, "127.0.0.1:9090", &own);
    for ends in [&far, &from_elsewhere, &among_applications] {
        carries(&ends.near, &ends.far, "as before");
    }
    assert_eq!(stage.ends(), 0);
    let messages = Count::ALL.map(|count| stage.counted(count));
    assert_eq!(
        messages, [0; 13],
        "a program looked at messages of {ROUTER_V4} or others"
    );
}
