//! A process that does with sockets what it is told, one JSON request per line of standard input.
//!
//! It is started as root in the namespace and the cgroup of a pod and takes the ids of its first argument, a JSON
//! [`Identity`]. It ends with its standard input.

use std::{
    collections::HashMap,
    io::{BufRead, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use sidestep_kit::actor::{
    Identity,
    protocol::{Answer, Errno, Request, SocketId, Traffic},
    server::{self, Workers},
    sys,
};

fn main() -> anyhow::Result<()> {
    let identity = std::env::args().nth(1).context("the identity is missing")?;
    let Identity { uids, gids, groups } = serde_json::from_str(&identity)?;
    sys::become_user(uids, gids, &groups)?;

    let mut actor = Actor::default();
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let request = serde_json::from_str(&line?)?;
        let answer = actor.act(request).unwrap_or_else(Answer::Failed);
        writeln!(output, "{}", serde_json::to_string(&answer)?)?;
        output.flush()?;
    }
    Ok(())
}

#[derive(Default)]
struct Actor {
    sockets: HashMap<SocketId, Held>,
    next: SocketId,
    workers: Option<Workers>,
}

struct Held {
    socket: Arc<OwnedFd>,
    served: bool,
}

impl Actor {
    fn act(&mut self, request: Request) -> Result<Answer, Errno> {
        match request {
            Request::Socket { family, kind } => {
                Ok(Answer::Socket(self.hold(sys::socket(family, kind)?)))
            }
            Request::Bind { socket, address } => done(sys::bind(self.get(socket)?, address)),
            Request::BindToDevice { socket, device } => done(sys::set_option(
                self.get(socket)?,
                libc::SOL_SOCKET,
                libc::SO_BINDTODEVICE,
                device.as_bytes(),
            )),
            Request::SetOption {
                socket,
                level,
                name,
                value,
            } => done(sys::set_option(
                self.get(socket)?,
                level,
                name,
                &value.to_ne_bytes(),
            )),
            Request::GetOption {
                socket,
                level,
                name,
                size,
            } => {
                let mut buffer = vec![0; size];
                let count = sys::option(self.get(socket)?, level, name, &mut buffer)?;
                buffer.truncate(count);
                Ok(Answer::Bytes(buffer, None))
            }
            Request::Connect {
                socket,
                address,
                timeout_ms,
            } => done(sys::connect(
                self.get(socket)?,
                address,
                milliseconds(timeout_ms),
            )),
            Request::Disconnect { socket } => done(sys::disconnect(self.get(socket)?)),
            Request::Listen { socket, backlog } => done(sys::listen(self.get(socket)?, backlog)),
            Request::Accept { socket, timeout_ms } => {
                let (accepted, peer) = sys::accept(self.get(socket)?, milliseconds(timeout_ms))?;
                Ok(Answer::Accepted(self.hold(accepted), peer))
            }
            Request::PeerName { socket } => sys::peer_name(self.get(socket)?).map(Answer::Address),
            Request::SocketName { socket } => {
                sys::socket_name(self.get(socket)?).map(Answer::Address)
            }
            Request::OriginalDestination { socket, family } => {
                sys::original_destination(self.get(socket)?, family).map(Answer::Address)
            }
            Request::Send { socket, bytes, to } => {
                done(sys::send(self.get(socket)?, &bytes, to).map(drop))
            }
            Request::Receive {
                socket,
                size,
                timeout_ms,
            } => {
                let mut buffer = vec![0; size];
                let (count, from) =
                    sys::receive(self.get(socket)?, &mut buffer, milliseconds(timeout_ms))?;
                buffer.truncate(count);
                Ok(Answer::Bytes(buffer, from))
            }
            Request::Descriptor { socket } => Ok(Answer::Descriptor(self.get(socket)?.as_raw_fd())),
            Request::Close { socket } => done(self.close(socket)),
            Request::Reset { socket } => {
                sys::reset_on_close(self.get(socket)?)?;
                done(self.close(socket))
            }
            Request::Serve { socket, name } => {
                let held = self.sockets.get_mut(&socket).ok_or(Errno(libc::EBADF))?;
                held.served = true;
                server::serve(Arc::clone(&held.socket), name);
                Ok(Answer::Done)
            }
            Request::BecomeUser { identity } => done(sys::become_user(
                identity.uids,
                identity.gids,
                &identity.groups,
            )),
            Request::Traffic(traffic) => self.make(traffic),
        }
    }

    fn make(&mut self, traffic: Traffic) -> Result<Answer, Errno> {
        match traffic {
            Traffic::Series { addresses, count } => {
                Ok(Answer::Load(server::connect_many(&addresses, count)))
            }
            Traffic::Start {
                address,
                fresh,
                kept,
            } => {
                self.workers = Some(Workers::start(address, fresh, kept));
                Ok(Answer::Done)
            }
            Traffic::Stop => {
                let workers = self.workers.take().ok_or(Errno(libc::ESRCH))?;
                Ok(Answer::Load(workers.stop()))
            }
        }
    }

    fn hold(&mut self, socket: OwnedFd) -> SocketId {
        self.next += 1;
        let held = Held {
            socket: Arc::new(socket),
            served: false,
        };
        self.sockets.insert(self.next, held);
        self.next
    }

    fn get(&self, socket: SocketId) -> Result<BorrowedFd<'_>, Errno> {
        let held = self.sockets.get(&socket).ok_or(Errno(libc::EBADF))?;
        Ok(held.socket.as_fd())
    }

    fn close(&mut self, socket: SocketId) -> Result<(), Errno> {
        let held = self.sockets.remove(&socket).ok_or(Errno(libc::EBADF))?;
        // A server's thread holds the listener too: it lets go when it can accept no more.
        if held.served {
            sys::shutdown(held.socket.as_fd())
        } else {
            Ok(())
        }
    }
}

fn done(result: Result<(), Errno>) -> Result<Answer, Errno> {
    result.map(|()| Answer::Done)
}

fn milliseconds(count: u32) -> Duration {
    Duration::from_millis(count.into())
}
