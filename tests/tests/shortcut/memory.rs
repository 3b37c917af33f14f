//! What a receiver who does not read costs: no more than with TCP, and the limit.

use std::{io::ErrorKind, io::Write, net::TcpStream, thread};

use sidestep_agent::shortcut::{LIMIT, Options};
use sidestep_ebpf_common::shortcut::Count;
use sidestep_kit::{
    actor::Kind,
    needs,
    process::{PATIENCE, eventually},
};

use crate::{
    hazards::set,
    stage::{Ends, NODE, Stage, Stream, carries, warm},
};

const STREAM: usize = 64 << 20;

fn plain() -> Stage {
    Stage::with(None, NODE, Kind::Tcp)
}

fn with_limit(limit: u32) -> Stage {
    let options = Options {
        limit,
        ..Options::default()
    };
    Stage::with(Some(options), NODE, Kind::Tcp)
}

/// Sends messages of this size until there is no room, as a sender that does not block sees it; says how many bytes that was.
fn fill(mut to: &TcpStream, size: usize) -> usize {
    let message = vec![7; size];
    let mut accepted = 0;
    loop {
        match to.write(&message) {
            Ok(sent) => accepted += sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return accepted,
            Err(error) => panic!("after {accepted} bytes: {error}"),
        }
        assert!(accepted < STREAM, "it takes whatever it is sent");
    }
}

/// Reads everything there is, and expects so many bytes.
fn drain(mut from: &Stream, bytes: usize) {
    use std::io::Read;
    let mut left = bytes;
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        match from.read(&mut buffer) {
            Ok(0) => panic!("it ends {left} bytes early"),
            Ok(got) => left -= got,
            Err(error) => panic!("{left} bytes early: {error}"),
        }
    }
}

#[needs(root)]
fn a_stalled_receiver_takes_no_more_than_tcp_and_the_limit() {
    let (tcp, stage) = (plain(), with_limit(LIMIT));
    for connect in [Stage::app_to_proxy, Stage::proxy_to_proxy] {
        for size in [64 << 10, 4 << 10, 512 << 10] {
            let by_tcp = fill(&connect(&tcp).near, size);
            let ends = connect(&stage);
            warm(&stage, &ends);
            let accepted = fill(&ends.near, size);
            assert!(
                accepted <= by_tcp + LIMIT as usize,
                "{accepted} bytes in messages of {size}, where TCP takes {by_tcp}"
            );
            drain(&ends.far, accepted);
            warm(&stage, &ends);
        }
    }
    assert!(stage.counted(Count::Full) > 0, "no receiver was ever full");
}

/// Each message takes a kilobyte of the kernel's memory, however small it is.
#[needs(root)]
fn a_stalled_receiver_of_single_bytes_takes_no_more_memory() {
    let stage = with_limit(LIMIT);
    let ends = stage.app_to_proxy();
    warm(&stage, &ends);
    let before = stage.counted(Count::Redirected);
    let accepted = fill_singly(&ends.near);
    let redirected = stage.counted(Count::Redirected) - before;
    assert!(
        (500..=1024).contains(&redirected),
        "{redirected} messages of a byte are kept"
    );
    drain(&ends.far, accepted);
    warm(&stage, &ends);
}

fn fill_singly(mut to: &TcpStream) -> usize {
    (0..20_000).take_while(|_| to.write(&[7]).is_ok()).count()
}

#[needs(root)]
fn a_thousand_stalled_receivers_take_no_more_than_a_thousand_of_tcps_and_the_limit() {
    const LIMIT: u32 = 128 << 10;
    const BUFFER: i32 = 32 << 10;
    let small = |stage: &Stage| {
        let listener = &stage.pods[0].outbound;
        let set = listener.set_option(libc::SOL_SOCKET, libc::SO_RCVBUF, BUFFER);
        set.expect("an option of every socket");
    };
    let (tcp, stage) = (plain(), with_limit(LIMIT));
    small(&tcp);
    small(&stage);
    // Small buffers at both ends: together they must not take what other tests' sockets need.
    let connect = |stage: &Stage| {
        let ends = stage.app_to_proxy();
        set(&ends.near, libc::SO_SNDBUF, BUFFER).expect("an option of every socket");
        ends
    };
    let by_tcp = fill(&connect(&tcp).near, 16 << 10);
    let all: Vec<Ends> = (0..1000).map(|_| connect(&stage)).collect();
    for ends in &all {
        let accepted = fill(&ends.near, 16 << 10);
        assert!(
            accepted <= by_tcp + LIMIT as usize,
            "{accepted} bytes, where TCP takes {by_tcp}"
        );
    }
    let redirected = stage.counted(Count::Redirected);
    assert!(redirected > 1000, "they went by TCP: {:?}", stage.tally());
    // Whoever reads is served as before; by TCP where they left it little memory.
    let reader = stage.app_to_proxy();
    carries(&reader.near, &reader.far, "asked");
    carries(&reader.far, &reader.near, "answered");
    if stage.counted(Count::Scarce) == 0 {
        warm(&stage, &reader);
    }
}

#[needs(root)]
fn a_blocking_sender_waits_until_the_receiver_reads() {
    const BYTES: usize = 16 << 20;
    let stage = Stage::new();
    let ends = stage.app_to_proxy();
    warm(&stage, &ends);
    let Ends { near, far } = &ends;
    near.set_nonblocking(false).expect("an open socket");
    thread::scope(|scope| {
        let sender = scope.spawn(|| (&**near).write_all(&vec![7; BYTES]));
        let waits = eventually(PATIENCE, || stage.counted(Count::Full) > 0);
        assert!(
            waits && !sender.is_finished(),
            "it is told that all is sent"
        );
        drain(far, BYTES);
        sender
            .join()
            .expect("no panic")
            .expect("there was room in time");
    });
}

/// Where TCP's memory is nearly used up the kernel would refuse to account redirected bytes, and the sender get ENOMEM.
#[needs(root)]
fn where_memory_is_scarce_tcp_carries_what_is_not_read_at_once() {
    let options = Options {
        memory_share: 0, // any memory at all is too much
        ..Options::default()
    };
    let stage = Stage::with(Some(options), NODE, Kind::Tcp);
    let ends = stage.app_to_proxy();
    warm(&stage, &ends);
    let before = stage.counted(Count::Redirected);
    let accepted = fill(&ends.near, 16 << 10);
    assert!(stage.counted(Count::Redirected) <= before + 1);
    assert!(stage.counted(Count::Scarce) > 0);
    drain(&ends.far, accepted);
}
