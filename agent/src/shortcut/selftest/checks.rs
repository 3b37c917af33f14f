//! What must hold. Each makes its own connections.

use std::{
    io::{ErrorKind, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsFd,
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use rustix::{
    event::epoll,
    net::{SendFlags, sockopt},
};
use sidestep_ebpf_common::shortcut::Count;

use super::{
    Proves::{self, Application, IntoApplication, Shortcut},
    applications,
    pair::{Outcome, Pair, bytes, check, expect_end, pair, read, receive, send},
    worker::{Bench, counted, switch},
};
use crate::sys;

/// A check.
type Holds = fn(&Bench) -> Outcome;

/// All of them, by name.
pub(super) const ALL: [(&str, Proves, Holds); 16] = [
    // Before anything is in a sockhash.
    ("MPTCP keeps out of it", Shortcut, |_| {
        applications::mptcp_is_refused()
    }),
    ("bytes go past TCP", Shortcut, goes_past_tcp),
    ("both ways at once, in order", Shortcut, both_ways),
    (
        "an application's bytes to its proxy, in order",
        Shortcut,
        from_application,
    ),
    ("a stalled reader is not buried", Shortcut, stalled),
    ("half-close", Shortcut, half_close),
    ("close after write", Shortcut, close_after_write),
    ("reset", Shortcut, reset),
    ("a large answer", Shortcut, large_answer),
    ("a full sender is woken", Shortcut, |bench| {
        woken(&bench.proxy)
    }),
    (
        "a full sender is woken where TCP carries everything",
        Shortcut,
        woken_by_tcp,
    ),
    (
        "an upper layer protocol keeps its connection to TCP",
        Shortcut,
        upper_layer,
    ),
    ("urgent bytes arrive in line", Shortcut, urgent),
    (
        "an application is told how much it can read (FIONREAD)",
        Application,
        applications::told_how_much,
    ),
    (
        "an application that splices reads in order",
        IntoApplication,
        applications::splices,
    ),
    (
        "an application that waits for all it asked for (MSG_WAITALL) reads in order",
        IntoApplication,
        applications::waits_for_all,
    ),
];

fn goes_past_tcp(bench: &Bench) -> Outcome {
    let before = counted(Count::Redirected)?;
    let pair = pair(&bench.proxy)?;
    let mut at = 0;
    for _ in 0..20 {
        send(&pair.near, at, 100)?;
        receive(&pair.far, at, 100)?;
        at += 100;
    }
    if counted(Count::Redirected)? >= before + 10 {
        Ok(())
    } else {
        Err("they do not".to_owned())
    }
}

fn both_ways(bench: &Bench) -> Outcome {
    let pairs = [pair(&bench.proxy)?, pair(&bench.proxy)?];
    thread::scope(|scope| {
        let streams: Vec<_> = pairs
            .iter()
            .flat_map(|Pair { near, far }| [(near, far), (far, near)])
            .flat_map(|(from, to)| {
                [
                    scope.spawn(|| write_many(from)),
                    scope.spawn(|| read_many(to)),
                ]
            })
            .collect();
        all(streams)
    })
}

/// What the first says that failed. The scope waits for the others.
fn all<'a>(streams: impl IntoIterator<Item = ScopedJoinHandle<'a, Outcome>>) -> Outcome {
    let panicked = |_| Err("a thread panicked".to_owned());
    streams
        .into_iter()
        .try_for_each(|stream| stream.join().unwrap_or_else(panicked))
}

/// Messages of the streams that are sent many of, and their sizes.
const MANY: usize = 1500;

const fn size_of(message: usize) -> usize {
    1 + message * 7919 % 4093
}

fn write_many(to: &TcpStream) -> Outcome {
    let mut at = 0;
    for message in 0..MANY {
        send(to, at, size_of(message))?;
        at += size_of(message);
    }
    Ok(())
}

/// Rests from time to time, so that the sender must go by TCP.
fn read_many(from: &TcpStream) -> Outcome {
    let total: usize = (0..MANY).map(size_of).sum();
    let mut at = 0;
    let mut buffer = vec![0; 16 << 10];
    let mut reads = 0;
    while at < total {
        let got = read(from, &mut buffer)?;
        if got == 0 {
            return Err(format!("ends at {at}, and not at {total}"));
        }
        check(at, &buffer[..got])?;
        at += got;
        reads += 1;
        if reads % 50 == 0 {
            thread::sleep(Duration::from_micros(500));
        }
    }
    Ok(())
}

fn from_application(bench: &Bench) -> Outcome {
    let before = counted(Count::Redirected)?;
    let Pair { near, far } = pair(&bench.application)?;
    send(&far, 0, 100)?;
    receive(&near, 0, 100)?;
    send(&far, 0, 100)?;
    receive(&near, 0, 100)?;
    if counted(Count::Redirected)? == before {
        return Err("they do not go past TCP".to_owned());
    }
    thread::scope(|scope| {
        let streams = [
            scope.spawn(|| write_many(&far)),
            scope.spawn(|| read_many(&near)),
            scope.spawn(|| write_many(&near)),
            scope.spawn(|| read_many(&far)),
        ];
        all(streams)
    })
}

/// More than any receiver takes that does not read, with TCP's buffers on both sides.
const TOO_MUCH: usize = 24 << 20;

fn stalled(bench: &Bench) -> Outcome {
    let pair = pair(&bench.proxy)?;
    let accepted = fill(&pair.near)?;
    if accepted >= TOO_MUCH {
        return Err(format!(
            "{accepted} bytes were taken for a reader who reads none"
        ));
    }
    receive(&pair.far, 0, accepted)?;
    send(&pair.near, accepted, 1000)?;
    receive(&pair.far, accepted, 1000)
}

/// Sends until there is no room, and says how much that was.
fn fill(mut to: &TcpStream) -> Outcome<usize> {
    const STEP: usize = 16 << 10;
    let mut accepted = 0;
    while accepted < TOO_MUCH {
        match to.write(bytes(accepted, STEP)) {
            Ok(sent) => accepted += sent,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => return Err(format!("after {accepted} bytes: {e}")),
        }
    }
    Ok(accepted)
}

fn half_close(bench: &Bench) -> Outcome {
    let Pair { near, far } = pair(&bench.proxy)?;
    send(&near, 0, 50_000)?;
    near.shutdown(Shutdown::Write).map_err(|e| e.to_string())?;
    receive(&far, 0, 50_000)?;
    expect_end(&far)?;
    send(&far, 0, 50_000)?;
    receive(&near, 0, 50_000)?;
    drop(far);
    expect_end(&near)
}

fn close_after_write(bench: &Bench) -> Outcome {
    for _ in 0..20 {
        let Pair { near, far } = pair(&bench.proxy)?;
        send(&near, 0, 3000)?;
        drop(near);
        receive(&far, 0, 3000)?;
        expect_end(&far)?;
    }
    Ok(())
}

fn reset(bench: &Bench) -> Outcome {
    let Pair { near, far } = pair(&bench.proxy)?;
    send(&near, 0, 100)?;
    receive(&far, 0, 100)?;
    sockopt::set_socket_linger(&near, Some(Duration::ZERO)).map_err(|e| e.to_string())?;
    drop(near);
    match read(&far, &mut [0; 16]) {
        Err(error) if error != "stuck" => Ok(()),
        other => Err(format!("the reset is not told: {other:?}")),
    }
}

fn large_answer(bench: &Bench) -> Outcome {
    const LARGE: usize = 2 << 20;
    let Pair { near, far } = pair(&bench.proxy)?;
    send(&near, 0, 100)?;
    receive(&far, 0, 100)?;
    thread::scope(|scope| {
        let answer = scope.spawn(|| send(&far, 0, LARGE));
        receive(&near, 0, LARGE)?;
        answer
            .join()
            .unwrap_or_else(|_| Err("a thread panicked".to_owned()))
    })
}

/// With edge-triggered epoll, as every event loop has it.
fn woken(listener: &TcpListener) -> Outcome {
    let pair = pair(listener)?;
    let error = |e: rustix::io::Errno| e.to_string();
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(error)?;
    let events = epoll::EventFlags::OUT | epoll::EventFlags::ET;
    let data = epoll::EventData::new_u64(0);
    epoll::add(&poll, &pair.near, data, events).map_err(error)?;
    let mut accepted = 0;
    for _ in 0..3 {
        let mut space: [epoll::Event; 4] = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data,
        }; 4];
        let now = rustix::event::Timespec::default();
        // What was to be told before there was no room.
        let _earlier = epoll::wait(&poll, &mut space[..], Some(&now)).map_err(error)?;
        let more = fill_from(&pair.near, accepted)?;
        receive(&pair.far, accepted, more)?;
        accepted += more;
        let patience = rustix::event::Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        if epoll::wait(&poll, &mut space[..], Some(&patience)).map_err(error)? == 0 {
            return Err("it is not told that there is room again".to_owned());
        }
    }
    Ok(())
}

fn fill_from(mut to: &TcpStream, from: usize) -> Outcome<usize> {
    const STEP: usize = 16 << 10;
    let mut accepted = 0;
    loop {
        match to.write(bytes(from + accepted, STEP)) {
            Ok(sent) => accepted += sent,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(accepted),
            Err(e) => return Err(format!("after {accepted} bytes: {e}")),
        }
        if accepted > TOO_MUCH {
            return Err(format!(
                "{accepted} bytes were taken for a reader who reads none"
            ));
        }
    }
}

fn woken_by_tcp(bench: &Bench) -> Outcome {
    switch(false)?;
    let outcome = woken(&bench.proxy);
    switch(true)?;
    outcome
}

/// Where the kernel has no such protocol the call fails; the mark is there all the same, which is what is tried.
fn upper_layer(bench: &Bench) -> Outcome {
    let before = counted(Count::Marked)?;
    let Pair { near, far } = pair(&bench.proxy)?;
    send(&near, 0, 100)?;
    receive(&far, 0, 100)?;
    let _unknown_protocol = sys::set_upper_layer(far.as_fd(), b"none");
    for (from, to) in [(&near, &far), (&far, &near)] {
        let start = if std::ptr::eq(from, &raw const near) {
            100
        } else {
            0
        };
        send(from, start, 100)?;
        receive(to, start, 100)?;
    }
    rustix::net::send(&near, bytes(200, 10), SendFlags::NOSIGNAL).map_err(|e| e.to_string())?;
    receive(&far, 200, 10)?;
    if counted(Count::Marked)? >= before + 3 {
        Ok(())
    } else {
        Err("it goes on past TCP".to_owned())
    }
}

/// The urgent byte comes in line, or is missing where TCP carried it after all. Nothing else changes.
fn urgent(bench: &Bench) -> Outcome {
    let Pair { near, far } = pair(&bench.proxy)?;
    send(&near, 0, 100)?;
    receive(&far, 0, 100)?;
    let flags = SendFlags::NOSIGNAL | SendFlags::OOB;
    rustix::net::send(&near, bytes(100, 10), flags).map_err(|e| e.to_string())?;
    send(&near, 110, 100)?;
    receive(&far, 100, 9)?;
    let mut next = [0];
    read(&far, &mut next)?;
    let from = if next == bytes(109, 1) { 110 } else { 111 };
    check(from - 1, &next)?;
    receive(&far, from, 210 - from)
}
