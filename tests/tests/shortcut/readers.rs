//! How an application reads that bytes are put into: where the kernel lets it be watched, those who read in another way than
//! the plain one are left to TCP.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::AsRawFd,
    thread,
};

use sidestep_agent::shortcut::{Allowed, Options, Shortcut, Switches};
use sidestep_ebpf_common::shortcut::Count;
use sidestep_kit::{
    actor::{Errno, Kind},
    needs,
};

use crate::{
    manners::while_it_waits,
    stage::{Ends, NODE, Stage, Stream, carries, words},
};

/// What lets bytes be put into the application.
const INTO: Allowed = Allowed {
    into_application: true,
    ..NODE
};

/// Sends all of it in small messages, and ends.
fn pour(mut to: &Stream) {
    for message in words().chunks(4096) {
        to.write_all(message).expect("somebody reads");
    }
    to.shutdown(Shutdown::Write).expect("an open socket");
}

/// An application that has read in the plain way, and then begins to read in another, before anything more is sent: not one
/// message goes past TCP from then on. What it has read, which must be everything.
fn read_by(another_way: impl FnOnce(&Stream) -> Vec<u8> + Send) {
    let stage = Stage::with(Some(Options::default()), INTO, Kind::Tcp);
    let cannot = stage.shortcut.as_ref().and_then(Shortcut::cannot_watch);
    let Ends { near, far } = stage.proxy_to_app();
    for _ in 0..3 {
        carries(&near, &far, "read plainly");
    }
    let redirected = stage.counted(Count::Redirected);
    match cannot {
        None => assert!(redirected > 0, "nothing is put into the application"),
        Some(why) => {
            assert_eq!(redirected, 0, "put into an application that nobody watches");
            eprintln!(
                "seen with TCP alone, for this kernel lets nobody watch readers: {}",
                why.trim()
            );
        }
    }
    far.set_nonblocking(false).expect("an open socket");
    let got = while_it_waits(|| another_way(&far), || pour(&near));
    assert!(got == words(), "in another order, or not all");
    assert_eq!(stage.counted(Count::Redirected), redirected);
    assert_eq!(stage.counted(Count::Hazards) > 0, cannot.is_none());
}

#[needs(root)]
fn an_application_that_waits_for_all_it_asked_for_reads_it_in_order() {
    read_by(|from| {
        let mut got = vec![0; words().len()];
        for part in got.chunks_mut(300_000) {
            assert_eq!(wait_all(from, part), part.len());
        }
        got
    });
}

fn wait_all(from: &TcpStream, buffer: &mut [u8]) -> usize {
    let at = buffer.as_mut_ptr().cast();
    // SAFETY: the buffer is as long as given.
    let got = unsafe { libc::recv(from.as_raw_fd(), at, buffer.len(), libc::MSG_WAITALL) };
    usize::try_from(got).unwrap_or_else(|_| panic!("{}", Errno::last()))
}

#[needs(root)]
fn an_application_that_splices_reads_in_order() {
    let (mut pipe, end) = std::io::pipe().expect("a pipe");
    let carried = thread::spawn(move || {
        let mut got = Vec::new();
        pipe.read_to_end(&mut got).expect("a pipe of ours");
        got
    });
    read_by(move |from| {
        splice(from, &end);
        drop(end);
        carried.join().expect("no panic")
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

/// A known difference from TCP: if it goes, the documents should say so. As nginx, tokio and Netty do, who takes a short read
/// for all there is waits for the next edge. What TCP brings behind redirected bytes, before those are read, comes with no
/// edge of its own.
#[needs(root)]
fn bytes_put_into_an_application_that_takes_a_short_read_for_all_there_is_may_stay_unread() {
    let options = Options {
        limit: 16 << 10,
        switches: Switches::TRUSTING,
        ..Options::default()
    };
    let stage = Stage::with(Some(options), INTO, Kind::Tcp);
    let Ends { near, far } = stage.proxy_to_app();
    carries(&near, &far, "first");
    let full = stage.counted(Count::Full);
    let sent = (0..8).map(|_| (&near).write(&[7; 4096]).expect("there is room"));
    let sent: usize = sent.sum();
    assert!(
        stage.counted(Count::Full) > full,
        "all of it was redirected"
    );

    let mut buffer = vec![0; 2 * sent];
    let short = (&far).read(&mut buffer).expect("there is something");
    assert!(short < sent, "a read does not end between the two any more");
    let mut rest = vec![0; sent - short];
    (&far)
        .read_exact(&mut rest)
        .expect("it is there for who asks");
}
