//! A socket is known by its cookie, which no other ever has: what is sent to one that is gone never gets to its successor,
//! even where that has the same two addresses and ports.

use std::{io::Read, io::Write};

use sidestep_ebpf_common::shortcut::Count;
use sidestep_kit::{
    actor::{Errno, Family, Kind},
    needs,
    process::{PATIENCE, eventually},
};

use crate::stage::{ADDRESSES, Ends, Stage, Stream, carries, warm};

const PORT: u16 = 40_001;

/// The first pod's proxy and the second's, always between the same two ports.
fn between(stage: &Stage) -> Ends {
    let proxy = &stage.pods[0].proxy;
    let socket = proxy.socket(Family::V4, Kind::Tcp).expect("a socket");
    let reuse = socket.set_option(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
    reuse.expect("an option of every socket");
    socket
        .bind(&format!("{}:{PORT}", ADDRESSES[0]))
        .expect("the port is free");
    // A process that another test is just starting has all descriptors until it executes, so that a socket may live on for a
    // moment after it was closed here.
    let to = format!("{}:15006", ADDRESSES[1]);
    let connected = eventually(PATIENCE, || match socket.connect(&to) {
        Err(Errno(libc::EADDRNOTAVAIL)) => false,
        done => {
            done.expect("a listener");
            true
        }
    });
    assert!(connected, "the predecessor stays");
    let (far, _) = stage.pods[1].inbound.accept().expect("a connection");
    let [near, far] = [socket, far].map(Stream::take);
    Ends { near, far }
}

fn reset(stream: Stream) {
    use std::os::fd::AsFd;
    sidestep_kit::actor::sys::reset_on_close(stream.as_fd()).expect("an open socket");
    drop(stream);
}

#[needs(root)]
fn a_successor_with_the_same_ports_gets_its_own_bytes_only() {
    let stage = Stage::new();
    let mut left = Vec::new();
    for round in 0..200 {
        let Ends { near, far } = between(&stage);
        let text = format!("of round {round};");
        carries(&near, &far, &text);
        let before = stage.counted(Count::Redirected);
        carries(&far, &near, &text);
        carries(&near, &far, &text);
        assert!(stage.counted(Count::Redirected) > before, "{round}");
        match round % 4 {
            // Unread bytes are left at the far end, which outlives several successors of the near one.
            0 | 1 => {
                (&near).write_all(b"stale").expect("there is room");
                reset(near);
                left.push(far);
            }
            2 => {
                reset(far);
                // The next has the same two ports. This one still knows the end that is gone.
                let _reset = (&near).write(b"to nobody");
                drop(near);
                for far in left.drain(..) {
                    let mut got = Vec::new();
                    let _reset = (&far).read_to_end(&mut got);
                    assert!(
                        b"stale".starts_with(&got[..]),
                        "{}",
                        String::from_utf8_lossy(&got)
                    );
                }
            }
            _ => reset(near),
        }
    }
}

#[needs(root)]
fn an_end_that_closes_late_takes_nothing_from_its_successor() {
    let stage = Stage::new();
    for _ in 0..50 {
        let Ends { near, far } = between(&stage);
        carries(&near, &far, "first");
        reset(near);
        let successor = between(&stage);
        // Its own record has long been replaced under the same ports.
        drop(far);
        warm(&stage, &successor);
        reset(successor.near);
    }
    // Nothing is left of connections that are closed.
    let gone = eventually(PATIENCE, || stage.ends() == 0);
    assert!(gone, "{} ends are left", stage.ends());
}
