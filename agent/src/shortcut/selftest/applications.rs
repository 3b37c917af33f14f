//! What must hold before sockets of any application take part, or get bytes.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind, ipproto, listen, recv, socket_with,
    },
    pipe::{SpliceFlags, pipe, splice},
};
use sidestep_ebpf_common::shortcut::MPTCP_PORT;

use super::{
    bench::{Bench, mptcp_answer},
    pair::{Outcome, PATIENCE, Pair, check, pair, receive, send, wait_readable},
};

/// Kernels that let MPTCP's sockets into a sockhash may crash when one of them accepts a connection that is in it. The fix
/// for one came with the fix for the other.
pub(super) fn mptcp_is_refused() -> Outcome {
    let flags = SocketFlags::CLOEXEC;
    let made = socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        flags,
        Some(ipproto::MPTCP),
    );
    let listener = match made {
        Ok(socket) => socket,
        // No MPTCP in this kernel, or none here: nothing to fear.
        Err(Errno::PROTONOSUPPORT | Errno::NOPROTOOPT) => return Ok(()),
        Err(e) => return Err(e.to_string()),
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, MPTCP_PORT));
    bind(&listener, &address).map_err(|e| e.to_string())?;
    listen(&listener, 1).map_err(|e| e.to_string())?;
    let refused = u64::from(Errno::OPNOTSUPP.raw_os_error().unsigned_abs());
    match mptcp_answer()? {
        answer if answer == refused => Ok(()),
        0 => Err("it is not seen to listen".to_owned()),
        1 => Err("the kernel takes its listener".to_owned()),
        other => Err(format!("the kernel answers with error {other}")),
    }
}

/// An application's socket sends past TCP and gets everything by TCP. Some of Linux's releases (since "bpf, sockmap: Fix
/// FIONREAD for sockmap", 929e30f93125) tell it that there is nothing to read; nginx, for one, then waits for good.
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
        Err(format!("of 1000 bytes it is told of {told}"))
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
