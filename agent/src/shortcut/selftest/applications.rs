//! What must hold before sockets of any application take part, or get bytes.

use std::{net::TcpStream, thread};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
    pipe::{SpliceFlags, pipe, splice},
};

use super::{
    super::kernel,
    bench::Bench,
    pair::{Outcome, PATIENCE, Pair, check, pair, receive, send, wait_readable},
};

/// An application's socket sends past TCP and gets everything by TCP. Some of Linux's releases (since "bpf, sockmap: Fix
/// FIONREAD for sockmap", 929e30f93125) tell it that there is nothing to read; nginx, for one, then waits for ever.
pub(super) fn told_how_much(bench: &Bench) -> Outcome {
    let Pair { near, far } = pair(&bench.application)?;
    send(&far, 0, 100)?;
    receive(&near, 0, 100)?;
    send(&near, 0, 1000)?;
    wait_readable(&far)?;
    let told = rustix::io::ioctl_fionread(&far).map_err(|e| e.to_string())?;
    receive(&far, 0, 1000)?;
    if told == 1000 {
        Ok(())
    } else {
        Err(format!(
            "of 1000 bytes it is told of {told}: {}",
            kernel::FIONREAD
        ))
    }
}

/// So much that the receiver's limit is reached many times.
const MANY: usize = 2 << 20;

/// Sends in small messages while the other end is read in some way.
fn while_sending(near: &TcpStream, read: impl FnOnce() -> Outcome) -> Outcome {
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let messages = (0..MANY).step_by(4 << 10);
            messages
                .into_iter()
                .try_for_each(|at| send(near, at, 4 << 10))
        });
        let outcome = read();
        let sent = sender
            .join()
            .unwrap_or_else(|_| Err("a thread panicked".to_owned()));
        outcome.and(sent)
    })
}

pub(super) fn splices(bench: &Bench) -> Outcome {
    let Pair { near, far } = pair(&bench.application)?;
    let (read, write) = pipe().map_err(|e| e.to_string())?;
    let mut buffer = vec![0; 64 << 10];
    while_sending(&near, || {
        let mut at = 0;
        while at < MANY {
            wait_readable(&far)?;
            let moved = match splice(
                &far,
                None,
                &write,
                None,
                buffer.len(),
                SpliceFlags::NONBLOCK,
            ) {
                // It was told that there is something: who splices waits again, and for good.
                Err(Errno::AGAIN) => return Err(format!("nothing to read at {at}")),
                other => other.map_err(|e| e.to_string())?,
            };
            let got = rustix::io::read(&read, &mut buffer[..moved]).map_err(|e| e.to_string())?;
            check(at, &buffer[..got])?;
            at += got;
        }
        Ok(())
    })
}

pub(super) fn waits_for_all(bench: &Bench) -> Outcome {
    let Pair { near, far } = pair(&bench.application)?;
    let block = || {
        far.set_nonblocking(false)?;
        far.set_read_timeout(Some(PATIENCE))
    };
    block().map_err(|e| e.to_string())?;
    let mut buffer = vec![0; 128 << 10];
    while_sending(&near, || {
        let mut at = 0;
        while at < MANY {
            let (got, _) =
                recv(&far, &mut buffer[..], RecvFlags::WAITALL).map_err(|e| e.to_string())?;
            if got < buffer.len() {
                return Err(format!("{got} bytes of {} at {at}", buffer.len()));
            }
            for (i, part) in buffer.chunks(64 << 10).enumerate() {
                check(at + i * (64 << 10), part)?;
            }
            at += got;
        }
        Ok(())
    })
}
