//! Where there is no room: what a sender is told, and what a receiver who does not read is given.

use std::{
    io::{ErrorKind, Write},
    net::{TcpListener, TcpStream},
};

use rustix::event::epoll;
use sidestep_ebpf_common::shortcut::Count;

use super::{
    bench::{Bench, counted, past_tcp, switch},
    pair::{Outcome, bytes, pair, receive, send},
};

/// More than any receiver takes that does not read, with TCP's buffers on both sides.
const TOO_MUCH: usize = 24 << 20;

pub(super) fn stalled(bench: &Bench) -> Outcome {
    switch(false)?;
    let by_tcp = pair(&bench.proxy).and_then(|pair| fill(&pair.near, 0));
    switch(true)?;
    let by_tcp = by_tcp?;
    let pair = pair(&bench.proxy)?;
    let accepted = past_tcp(|| fill(&pair.near, 0))?;
    // TCP's own buffers are not always the same.
    if accepted > by_tcp + by_tcp / 2 + super::RECEIVER_LIMIT as usize {
        return Err(format!(
            "{accepted} bytes were taken for a reader who reads none, where TCP takes {by_tcp}"
        ));
    }
    receive(&pair.far, 0, accepted)?;
    send(&pair.near, accepted, 1000)?;
    receive(&pair.far, accepted, 1000)
}

/// With edge-triggered epoll, as every event loop has it.
pub(super) fn woken(listener: &TcpListener) -> Outcome {
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
        let more = fill(&pair.near, accepted)?;
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

/// Sends until there is no room, and says how much that was.
fn fill(mut to: &TcpStream, from: usize) -> Outcome<usize> {
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

pub(super) fn woken_by_tcp(bench: &Bench) -> Outcome {
    switch(false)?;
    let before = counted(Count::Redirected)?;
    let outcome = woken(&bench.proxy);
    let after = counted(Count::Redirected)?;
    switch(true)?;
    if after > before {
        return Err("it goes past TCP where that is off".to_owned());
    }
    outcome
}
