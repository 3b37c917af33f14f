//! What must hold. Each makes its own connections.

use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    os::fd::AsFd,
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use rustix::net::SendFlags;
use sidestep_ebpf_common::shortcut::Count;

use super::{
    INBOUND,
    Proves::{self, Application, IntoApplication, Safety, Shortcut},
    applications,
    bench::{Bench, counted, past_tcp},
    companion, endings, full,
    pair::{Outcome, Pair, bytes, check, pair, pair_by, read, receive, send, send_many},
};
use crate::sys;

/// A check.
type Holds = fn(&Bench) -> Outcome;

/// All of them, by name.
pub(super) const ALL: [(&str, Proves, Holds); 17] = [
    // Before anything is in a sockhash.
    ("MPTCP keeps out of it", Safety, |_| companion::holds()),
    ("bytes go past TCP", Shortcut, goes_past_tcp),
    ("both ways at once, in order", Shortcut, both_ways),
    (
        "the same by IPv6, and to IPv4 from it",
        Shortcut,
        both_families,
    ),
    (
        "an application's bytes to its proxy, in order",
        Shortcut,
        from_application,
    ),
    ("a stalled reader is not buried", Shortcut, full::stalled),
    ("half-close", Shortcut, endings::half_close),
    ("close after write", Shortcut, endings::close_after_write),
    ("reset", Shortcut, endings::reset),
    ("a large answer", Shortcut, large_answer),
    ("a full sender is woken", Shortcut, |bench| {
        past_tcp(|| full::woken(&bench.proxy))
    }),
    (
        "a full sender is woken where TCP carries everything",
        Shortcut,
        full::woken_by_tcp,
    ),
    (
        "an upper layer protocol keeps its connection to TCP",
        Shortcut,
        upper_layer,
    ),
    ("urgent bytes arrive in line", Shortcut, |bench| {
        past_tcp(|| urgent(bench))
    }),
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
    past_tcp(|| streams(&[pair(&bench.proxy)?, pair(&bench.proxy)?], MANY))
}

fn both_families(bench: &Bench) -> Outcome {
    let Some(proxy6) = &bench.proxy6 else {
        return Ok(()); // where there is no IPv6 nobody uses it
    };
    past_tcp(|| streams(&[pair(proxy6)?], FEW))?;
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    past_tcp(|| streams(&[pair_by(&bench.proxy, (mapped, INBOUND).into())?], FEW))
}

/// So many messages both ways on each connection, all at once; then one each way, when all is read: whoever writes faster
/// than is read may have had to go by TCP until then.
fn streams(pairs: &[Pair], messages: usize) -> Outcome {
    let ways = pairs
        .iter()
        .flat_map(|Pair { near, far }| [(near, far), (far, near)]);
    thread::scope(|scope| {
        let streams: Vec<_> = ways
            .clone()
            .flat_map(|(from, to)| {
                [
                    scope.spawn(move || write_many(from, messages)),
                    scope.spawn(move || read_many(to, messages)),
                ]
            })
            .collect();
        all(streams)
    })?;
    let total = length_of(messages);
    for (from, to) in ways {
        send(from, total, 100)?;
        receive(to, total, 100)?;
    }
    Ok(())
}

/// What the first says that failed. The scope waits for the others.
fn all<'a>(streams: impl IntoIterator<Item = ScopedJoinHandle<'a, Outcome>>) -> Outcome {
    let panicked = |_| Err("a thread panicked".to_owned());
    streams
        .into_iter()
        .try_for_each(|stream| stream.join().unwrap_or_else(panicked))
}

/// Messages of the streams that are sent many of, of those that show that it is the same elsewhere, and their sizes.
const MANY: usize = 1500;
const FEW: usize = 200;
const REST: Duration = Duration::from_micros(500);

const fn size_of(message: usize) -> usize {
    1 + message * 7919 % 4093
}

fn length_of(messages: usize) -> usize {
    (0..messages).map(size_of).sum()
}

/// Rests from time to time, so that who reads catches up and messages go past TCP again.
fn write_many(to: &TcpStream, messages: usize) -> Outcome {
    let mut at = 0;
    for message in 0..messages {
        send(to, at, size_of(message))?;
        at += size_of(message);
        if message % 100 == 99 {
            thread::sleep(REST);
        }
    }
    Ok(())
}

/// Rests from time to time, so that the sender must go by TCP.
fn read_many(from: &TcpStream, messages: usize) -> Outcome {
    let total = length_of(messages);
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
            thread::sleep(REST);
        }
    }
    Ok(())
}

fn from_application(bench: &Bench) -> Outcome {
    // The first connection of a port shows that the application does not block.
    let Pair { near, far } = pair(&bench.application)?;
    send(&far, 0, 100)?;
    receive(&near, 0, 100)?;
    drop(far);
    let Pair { near, far } = pair(&bench.application)?;
    past_tcp(|| {
        send(&far, 0, 100)?;
        receive(&near, 0, 100)?;
        send(&far, 100, 100)?;
        receive(&near, 100, 100)
    })?;
    past_tcp(|| streams(&[pair(&bench.application)?], MANY))
}

fn large_answer(bench: &Bench) -> Outcome {
    const LARGE: usize = 2 << 20;
    // What is as large as the receiver's limit goes by TCP.
    const MESSAGE: usize = 16 << 10;
    let Pair { near, far } = pair(&bench.proxy)?;
    send(&near, 0, 100)?;
    receive(&far, 0, 100)?;
    past_tcp(|| {
        thread::scope(|scope| {
            let answer = scope.spawn(|| {
                let mut messages = (0..LARGE).step_by(MESSAGE);
                messages.try_for_each(|at| send(&far, at, MESSAGE))
            });
            receive(&near, 0, LARGE)?;
            answer
                .join()
                .unwrap_or_else(|_| Err("a thread panicked".to_owned()))
        })
    })
}

/// A protocol that the kernel has, where it has one: then nobody but the programs refuses it.
fn protocol() -> &'static [u8] {
    let known = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap_or_default();
    if known.split_whitespace().any(|name| name == "tls") {
        b"tls"
    } else {
        b"none"
    }
}

/// Over bytes that went past TCP and are unread it is refused; and the connection is TCP's from then on.
fn upper_layer(bench: &Bench) -> Outcome {
    let before = counted(Count::Marked)?;
    let Pair { near, far } = pair(&bench.proxy)?;
    past_tcp(|| send_many(&near, 0, 3000))?;
    match sys::set_upper_layer(far.as_fd(), protocol()) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
        other => return Err(format!("over unread bytes it is answered {other:?}")),
    }
    receive(&far, 0, 3000)?;
    for (from, to, start) in [(&near, &far, 3000), (&far, &near, 0)] {
        send(from, start, 100)?;
        receive(to, start, 100)?;
    }
    rustix::net::send(&near, bytes(3100, 10), SendFlags::NOSIGNAL).map_err(|e| e.to_string())?;
    receive(&far, 3100, 10)?;
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
