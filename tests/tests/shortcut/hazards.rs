//! What a hostile review of the first design found, one test each, and what else two sockets can do to each other.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::fd::{AsFd, AsRawFd},
};

use sidestep_agent::shortcut::Options;
use sidestep_ebpf_common::shortcut::Count;
use sidestep_kit::{
    actor::{Errno, Family, Kind, sys},
    needs,
};

use crate::stage::{Ends, NODE, Stage, carries, gets, warm};

/// Go's servers listen so.
#[needs(root)]
fn an_application_that_listens_with_mptcp_is_served() {
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

#[needs(root)]
fn what_is_mptcp_at_both_ends_goes_by_tcp() {
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

/// A protocol over unread bytes would take them for bytes that it has checked.
#[needs(root)]
fn an_upper_layer_protocol_at_either_end_keeps_the_connection_on_tcp() {
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

#[needs(root)]
fn an_upper_layer_protocol_over_unread_bytes_is_refused() {
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

/// Its records would be made of bytes that are not the ones on the wire, and read out of order.
#[needs(root, self::tls)]
fn a_connection_that_the_kernel_encrypts_is_left_to_tcp() {
    let stage = Stage::new();
    let ends = stage.app_to_proxy();
    warm(&stage, &ends);
    for end in [&ends.near, &ends.far] {
        set_protocol(end).expect("the kernel has TLS");
    }
    let (near, far) = (&ends.near, &ends.far);
    let keys = [(near, TLS_TX), (far, TLS_RX), (far, TLS_TX), (near, TLS_RX)];
    let keys = keys.map(|(end, direction)| set_key(end, direction));
    // Linux 6.1 takes none on a socket that is in a sockhash; then programs encrypt by themselves.
    let none = [Err(Errno(libc::EINVAL)); 4];
    assert!(keys == [Ok(()); 4] || keys == none, "{keys:?}");
    let before = stage.counted(Count::Redirected);
    for _ in 0..100 {
        carries(&ends.near, &ends.far, "sealed");
        carries(&ends.far, &ends.near, "as well");
    }
    assert_eq!(stage.counted(Count::Redirected), before);
}

/// The kernel's own where it has one: then nobody but the programs refuses it.
fn set_protocol(socket: &TcpStream) -> Result<(), Errno> {
    const TCP_ULP: i32 = 31;
    let name: &[u8] = if tls().is_ok() { b"tls" } else { b"none" };
    sys::set_option(socket.as_fd(), libc::IPPROTO_TCP, TCP_ULP, name)
}

fn tls() -> Result<(), String> {
    let known = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap_or_default();
    let known = known.split_whitespace().any(|name| name == "tls");
    known
        .then_some(())
        .ok_or_else(|| "this kernel has no TLS of its own".to_owned())
}

const TLS_TX: i32 = 1;
const TLS_RX: i32 = 2;

/// A key for what is sent, or received: `struct tls12_crypto_info_aes_gcm_128`.
fn set_key(socket: &TcpStream, direction: i32) -> Result<(), Errno> {
    const SOL_TLS: i32 = 282;
    const TLS_1_2: u16 = 0x0303;
    const AES_GCM_128: u16 = 51;
    let mut info = [TLS_1_2.to_ne_bytes(), AES_GCM_128.to_ne_bytes()].concat();
    // Initialisation vector, key, salt, and number of the first record.
    info.resize(info.len() + 8 + 16 + 4 + 8, 0);
    sys::set_option(socket.as_fd(), SOL_TLS, direction, &info)
}

#[needs(root)]
fn a_reader_who_waits_for_more_than_a_byte_is_left_to_tcp() {
    let stage = Stage::new();
    let ends = stage.app_to_proxy();
    warm(&stage, &ends);
    set(&ends.far, libc::SO_RCVLOWAT, 1000).expect("an option of every socket");
    let before = stage.counted(Count::Redirected);
    let message = "m".repeat(1000);
    carries(&ends.near, &ends.far, &message);
    assert_eq!(stage.counted(Count::Redirected), before);
}

/// As who moves a live connection to another machine does: what the socket says of its bytes is TCP's alone.
#[needs(root)]
fn an_end_that_was_under_repair_stays_with_tcp() {
    let stage = Stage::new();
    for at_near in [true, false] {
        let ends = stage.proxy_to_proxy();
        warm(&stage, &ends);
        let Ends { near, far } = &ends;
        let before = stage.counted(Count::Redirected);
        for _ in 0..3 {
            carries(far, near, "warm");
        }
        assert!(stage.counted(Count::Redirected) > before, "the way back");
        let end = if at_near { near } else { far };
        repair(end, ON);
        repair(end, OFF);
        let before = stage.counted(Count::Redirected);
        let marked = stage.counted(Count::Marked);
        for _ in 0..3 {
            carries(near, far, "by TCP");
            carries(far, near, "as well");
        }
        assert_eq!(stage.counted(Count::Redirected), before);
        assert_eq!(stage.counted(Count::Marked), marked + 6);
    }
}

const ON: i32 = 1;
/// Without the probe that tells the other side how much there is room for.
const OFF: i32 = -1;

fn repair(socket: &TcpStream, how: i32) {
    let how = how.to_ne_bytes();
    sys::set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_REPAIR, &how)
        .expect("an option that root can set");
}

#[needs(root)]
fn an_end_that_sends_cannot_have_zero_copy() {
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

/// Sets an option of every socket.
pub fn set(socket: &TcpStream, name: i32, value: i32) -> Result<(), Errno> {
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, name, &value.to_ne_bytes())
}

/// The known differences from TCP: if one goes, the documents should say so.
#[needs(root)]
fn who_closes_with_unread_bytes_ends_the_stream_and_does_not_reset_it() {
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

#[needs(root)]
fn urgent_bytes_arrive_in_line() {
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
