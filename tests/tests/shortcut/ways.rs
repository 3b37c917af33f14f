//! Which connections take part, and in which ways their ends may send.

use std::{
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    os::fd::AsRawFd,
    thread,
};

use sidestep_ebpf_common::shortcut::Count;
use sidestep_kit::{
    actor::{Actor, Errno, Identity},
    needs,
    net::OUTSIDE_V4,
};

use crate::stage::{ADDRESSES, Stage, carries, connect, gets, warm, words};

#[needs(root)]
fn sendfile_and_messages_in_parts_arrive_as_they_are() {
    let stage = Stage::new();
    let ends = stage.app_to_proxy();
    warm(&stage, &ends);
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(&words()).expect("a file of ours");
    ends.near.set_nonblocking(false).expect("an open socket");
    thread::scope(|scope| {
        scope.spawn(|| send_file(&file, &ends.near));
        let mut got = vec![0; words().len()];
        (&ends.far).read_exact(&mut got).expect("it arrives");
        assert!(got == words(), "other bytes, or in another order");
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

#[needs(root)]
fn every_family_takes_part() {
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

/// What is counted of a message, however it goes.
const MESSAGES: [Count; 10] = [
    Count::Redirected,
    Count::Bytes,
    Count::Unread,
    Count::Full,
    Count::Scarce,
    Count::Busy,
    Count::Marked,
    Count::Unseen,
    Count::Off,
    Count::Alone,
];

#[needs(root)]
fn connections_with_one_end_elsewhere_do_not_take_part() {
    let stage = Stage::new();
    let counts = || MESSAGES.map(|count| stage.counted(count));
    let reasons = || [Count::Elsewhere, Count::Direct].map(|count| stage.counted(count));
    let (before, proxy) = ((counts(), reasons()), &stage.pods[0].proxy);
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
    assert_eq!(counts(), before.0, "a program looked at their messages");
    // Each has its reason: two other addresses are no pod's, and one connection is among applications.
    let [elsewhere, direct] = before.1;
    assert_eq!(reasons(), [elsewhere + 2, direct + 1]);
}
