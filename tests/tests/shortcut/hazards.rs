//! What a hostile review of the first design found, one test each, and what else two sockets can do to each other.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::{AsFd, AsRawFd},
};

use sidestep_agent::shortcut::{Allowed, Options};
use sidestep_ebpf_common::shortcut::Count;
use sidestep_kit::{
    actor::{Errno, Family, Kind, Socket, sys},
    needs,
};

use crate::stage::{Ends, NODE, Stage, Stream, carries, gets, warm};

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

/// One end only sends, the other only receives; between sidecars both do both. Read or unread, nothing else changes.
#[needs(root)]
fn an_upper_layer_protocol_is_refused_at_every_end() {
    let stage = Stage::new();
    for ends in [stage.app_to_proxy(), stage.proxy_to_proxy()] {
        warm(&stage, &ends);
        (&ends.near).write_all(b"unread").expect("there is room");
        for end in [&ends.near, &ends.far] {
            assert_eq!(set_protocol(end), REFUSED);
        }
        gets(&ends.far, "unread");
        for end in [&ends.near, &ends.far] {
            assert_eq!(set_protocol(end), REFUSED);
        }
        warm(&stage, &ends);
        carries(&ends.far, &ends.near, "the way back");
    }
}

/// Only closing takes a socket out of a sockhash.
#[needs(root)]
fn an_end_that_is_connected_anew_is_refused_an_upper_layer_protocol_still() {
    let stage = Stage::new();
    for at in ["127.0.0.1:15001", "127.0.0.1:8080"] {
        let pod = &stage.pods[0];
        let socket = pod.app.connect("127.0.0.1:15001").expect("a listener");
        let (first, _) = pod.outbound.accept().expect("a connection");
        assert_eq!(ask_protocol(&socket), REFUSED, "it is no end");
        socket.disconnect().expect("an open socket");
        assert_eq!(ask_protocol(&socket), REFUSED);
        drop(first);
        socket.connect(at).expect("a listener");
        let listener = if at.ends_with("15001") {
            &pod.outbound
        } else {
            &pod.server
        };
        let (second, _) = listener.accept().expect("a connection");
        assert_eq!(ask_protocol(&socket), REFUSED);
        let before = stage.counted(Count::Redirected);
        for (from, to) in [(&socket, &second), (&second, &socket)] {
            from.send(b"by TCP").expect("there is room");
            assert_eq!(to.receive().expect("it arrives"), b"by TCP");
        }
        assert_eq!(stage.counted(Count::Redirected), before);
    }
}

/// Between the programs' answer and the kernel's own check a socket may be connected.
#[needs(root)]
fn a_socket_that_asked_for_an_upper_layer_protocol_before_is_never_an_end() {
    let stage = Stage::new();
    let socket = stage.pods[0].app.socket(Family::V4, Kind::Tcp);
    let socket = socket.expect("a socket");
    let answer = if has_tls() {
        libc::ENOTCONN
    } else {
        libc::ENOENT
    };
    assert_eq!(ask_protocol(&socket), Err(Errno(answer)), "Linux's own");
    let ends = stage.counted(Count::Ends);
    socket.connect("127.0.0.1:15001").expect("a listener");
    let (proxy, _) = stage.pods[0].outbound.accept().expect("a connection");
    let [near, far] = [socket, proxy].map(Stream::take);
    for _ in 0..3 {
        carries(&near, &far, "as before");
    }
    assert_eq!(stage.counted(Count::Ends), ends);
    if has_tls() {
        encrypted_by_the_kernel(&Ends { near, far });
    }
}

/// The kernel's TLS works wherever a connection has no end in a sockhash.
fn encrypted_by_the_kernel(ends: &Ends) {
    let Ends { near, far } = ends;
    for end in [near, far] {
        set_protocol(end).expect("the kernel has TLS");
    }
    for (end, direction) in [(near, TLS_TX), (far, TLS_RX), (far, TLS_TX), (near, TLS_RX)] {
        set_key(end, direction).expect("a key of the right length");
    }
    for _ in 0..100 {
        carries(near, far, "sealed");
        carries(far, near, "as well");
    }
}

/// The refusal of every member of a sockhash.
const REFUSED: Result<(), Errno> = Err(Errno(libc::EOPNOTSUPP));

const TCP_ULP: i32 = 31;

/// The same by an actor, whose options are numbers.
fn ask_protocol(socket: &Socket) -> Result<(), Errno> {
    socket.set_option(libc::IPPROTO_TCP, TCP_ULP, i32::from_ne_bytes(*b"tls\0"))
}

fn set_protocol(socket: &TcpStream) -> Result<(), Errno> {
    sys::set_option(socket.as_fd(), libc::IPPROTO_TCP, TCP_ULP, b"tls")
}

fn has_tls() -> bool {
    let known = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap_or_default();
    known.split_whitespace().any(|name| name == "tls")
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
        for how in [ON, OFF] {
            repair(end, how).expect("an option that root can set");
        }
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

fn repair(socket: &TcpStream, how: i32) -> Result<(), Errno> {
    let how = how.to_ne_bytes();
    sys::set_option(socket.as_fd(), libc::IPPROTO_TCP, libc::TCP_REPAIR, &how)
}

/// They are not in the queue that is read under repair.
#[needs(root)]
fn repair_over_unread_bytes_is_refused() {
    let stage = Stage::new();
    let ends = stage.app_to_proxy();
    warm(&stage, &ends);
    let before = stage.counted(Count::Redirected);
    (&ends.near).write_all(b"past TCP").expect("there is room");
    assert!(stage.counted(Count::Redirected) > before);
    assert_eq!(repair(&ends.far, ON), REFUSED);
    assert_eq!(repair(&ends.far, ON), REFUSED, "they are unread still");
    gets(&ends.far, "past TCP");
    repair(&ends.far, ON).expect("nothing is unread");
    repair(&ends.far, OFF).expect("it is on");
    // What TCP brought meanwhile is in its own queue.
    (&ends.near).write_all(b"by TCP").expect("there is room");
    repair(&ends.far, OFF).expect("nothing is lost");
    gets(&ends.far, "by TCP");
}

/// The kernel's own way past TCP does not look whether the sender may send.
#[needs(root)]
fn who_has_shut_down_cannot_send() {
    let stage = Stage::new();
    for ends in [stage.app_to_proxy(), stage.proxy_to_proxy()] {
        warm(&stage, &ends);
        let Ends { near, far } = &ends;
        near.shutdown(Shutdown::Write).expect("an open connection");
        // From here on what was sent by TCP is read, and so is its end.
        let end = (&*far).read(&mut [0; 16]).expect("an end");
        assert_eq!(end, 0);
        cannot_send(&stage, near);
        carries(far, near, "the other way is open");
    }
}

#[needs(root)]
fn who_was_reset_cannot_send() {
    let stage = Stage::new();
    let pod = &stage.pods[0];
    let socket = pod.app.connect("127.0.0.1:15001").expect("a listener");
    let (far, _) = pod.outbound.accept().expect("a connection");
    let before = stage.counted(Count::Redirected);
    for _ in 0..3 {
        socket.send(b"warm").expect("there is room");
        assert_eq!(far.receive().expect("it arrives"), b"warm");
    }
    assert!(stage.counted(Count::Redirected) > before, "it goes by TCP");
    // The receiver stays open, and in the sockhash.
    far.disconnect().expect("an open socket");
    assert_eq!(socket.receive(), Err(Errno(libc::ECONNRESET)));
    let near = Stream::take(socket);
    cannot_send(&stage, &near);
}

fn cannot_send(stage: &Stage, mut near: &Stream) {
    let before = stage.counted(Count::Redirected);
    for _ in 0..3 {
        let sent = near.write(b"too late").map_err(|error| error.kind());
        assert_eq!(sent, Err(ErrorKind::BrokenPipe));
    }
    assert_eq!(stage.counted(Count::Redirected), before);
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

/// Who looks at what there is, and waits for more before he reads any of it, sees nothing of what TCP brings behind redirected
/// bytes. TCP carries a message while those are unread only where the shortcut is being switched off, or memory is short.
#[needs(root)]
fn who_peeks_sees_redirected_bytes_alone_until_he_reads_them() {
    let mut stage = Stage::new();
    let ends = stage.app_to_proxy();
    warm(&stage, &ends);
    let Ends { near, far } = &ends;
    let before = stage.counted(Count::Redirected);
    (&*near).write_all(b"past TCP;").expect("there is room");
    assert!(stage.counted(Count::Redirected) > before);
    stage.allow(0, Allowed::default());
    (&*near).write_all(b"by TCP;").expect("there is room");
    assert!(stage.counted(Count::Off) > 0);
    let mut buffer = [0; 64];
    for _ in 0..3 {
        let seen = far.peek(&mut buffer).expect("something is there");
        assert_eq!(buffer[..seen], *b"past TCP;");
    }
    gets(far, "past TCP;by TCP;");
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
