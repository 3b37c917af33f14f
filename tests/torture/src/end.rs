//! One end of a connection: sends its stream, checks every byte of the other's by its position.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    os::fd::{AsFd, AsRawFd},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    plan::{Ending, Plan, Side},
    stream::Stream,
};
use sidestep_kit::actor::sys;

/// Nothing moves for so long: the connection is stuck.
const PATIENCE: Duration = Duration::from_secs(20);

/// After so many reads a slow reader has seen the other end stall, and is slow no more.
const SLOW_READS: u32 = 100;

/// How often a blocking read came back with EAGAIN before its time: Linux does so on a socket in a sockhash, where
/// another thread shuts the socket down or waits for room in it (`tcp_msg_wait_data` waits for one event, whatever it is).
pub static WOKEN_EARLY: AtomicU64 = AtomicU64::new(0);

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// Another byte than the one that belongs there.
    Corrupted {
        /// Where in the stream.
        at: u64,
    },
    /// The stream ended early, or an orderly connection failed.
    Lost {
        /// Where in the stream.
        at: u64,
        /// Where it should have ended.
        of: u64,
        /// What the system said.
        why: String,
    },
    /// More than was sent.
    TooMuch,
    /// A send after the sender's own shutdown was taken.
    SentAfterShutdown,
    /// Nothing moved any more.
    Stuck {
        /// Bytes received.
        received: u64,
        /// Bytes sent.
        sent: u64,
    },
}

/// What an end has to do, and how far it is.
#[derive(Debug)]
struct End<'a> {
    socket: &'a TcpStream,
    plan: &'a Plan,
    other: &'a Plan,
    sends: Stream,
    gets: Stream,
}

/// Plays one end to its end.
pub fn play(
    socket: &TcpStream,
    connection: u64,
    side: Side,
    plan: &Plan,
    other: &Plan,
) -> Result<(), Fault> {
    let far = match side {
        Side::Client => Side::Server,
        Side::Server => Side::Client,
    };
    let end = End {
        socket,
        plan,
        other,
        sends: Stream::of(connection, side),
        gets: Stream::of(connection, far),
    };
    let answer = if plan.blocking {
        end.block()
    } else {
        end.poll()
    };
    if plan.ending == Ending::Reset {
        // It may be reset already.
        let _ = sys::reset_on_close(socket.as_fd());
    }
    match answer {
        Err(Fault::Lost { .. }) if !plan.delivers(other) => Ok(()),
        other => other,
    }
}

impl End<'_> {
    /// One thread, which never waits in a call but poll's.
    fn poll(&self) -> Result<(), Fault> {
        self.socket.set_nonblocking(true).expect("an open socket");
        let mut buffer = vec![0; self.read_size()];
        let (mut sent, mut received) = (0, 0);
        let mut message = 0;
        let mut message_end = self.plan.messages.first().map_or(0, |size| *size as u64);
        let mut rest_until = Instant::now() + self.rest_before(0);
        let (mut writes, mut ended, mut taken) = (true, false, 0);
        let mut moved = Instant::now();
        loop {
            if message == self.plan.messages.len() && writes {
                writes = false;
                match self.plan.ending {
                    Ending::HalfClose | Ending::Leave(_) => self.shut_down()?,
                    Ending::CloseAfterWrite | Ending::Reset => return Ok(()),
                    Ending::CloseWhenDone => {}
                }
            }
            if let Ending::Leave(at) = self.plan.ending
                && received >= at
            {
                return Ok(());
            }
            let got_all = received == self.other.total() && self.closes_when_done();
            if !writes && (ended || got_all) {
                return Ok(());
            }
            let now = Instant::now();
            let ready = writes && received >= self.plan.after[message];
            let rests = rest_until.saturating_duration_since(now);
            let wants_write = ready && rests.is_zero();
            let wait = if ready && !rests.is_zero() {
                rests
            } else {
                Duration::from_millis(500)
            };
            let (readable, writable) = wait_for(self.socket, !ended, wants_write, wait);
            if readable && !ended {
                match self.read(received, &mut buffer) {
                    Ok(Ok(0)) => {
                        self.check_end(received)?;
                        ended = true;
                    }
                    Ok(count) => {
                        let count = count?;
                        self.check(received, &buffer[..count])?;
                        received += count as u64;
                        self.rest_after(&mut taken);
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(self.lost(received, &error.to_string())),
                }
                moved = Instant::now();
            }
            if writable && wants_write {
                let left = usize::try_from(message_end - sent).expect("a message fits");
                match (&*self.socket).write(self.sends.at(sent, left)) {
                    Ok(count) => {
                        sent += count as u64;
                        moved = Instant::now();
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(self.lost(received, &error.to_string())),
                }
                if sent == message_end {
                    message += 1;
                    message_end += self
                        .plan
                        .messages
                        .get(message)
                        .map_or(0, |size| *size as u64);
                    rest_until = Instant::now() + self.rest_before(message);
                }
            }
            if moved.elapsed() > PATIENCE {
                return Err(Fault::Stuck { received, sent });
            }
        }
    }

    /// Two threads, each in blocking calls.
    fn block(&self) -> Result<(), Fault> {
        for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
            set(self.socket, Some(PATIENCE)).expect("an open socket");
        }
        thread::scope(|scope| {
            let writer = scope.spawn(|| self.write_all());
            let got = match self.plan.ending {
                Ending::CloseAfterWrite | Ending::Reset => Ok(()),
                _ => self.read_all(),
            };
            let sent = writer.join().expect("the writer does not panic");
            got.and(sent)
        })
    }

    fn write_all(&self) -> Result<(), Fault> {
        let mut sent = 0;
        for (message, size) in self.plan.messages.iter().enumerate() {
            thread::sleep(self.rest_before(message));
            let end = sent + *size as u64;
            while sent < end {
                let left = usize::try_from(end - sent).expect("a message fits");
                match (&*self.socket).write(self.sends.at(sent, left)) {
                    Ok(count) => sent += count as u64,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        return Err(Fault::Stuck { received: 0, sent });
                    }
                    Err(error) => return Err(self.lost(0, &error.to_string())),
                }
            }
        }
        if matches!(self.plan.ending, Ending::HalfClose | Ending::Leave(_)) {
            self.shut_down()?;
        }
        Ok(())
    }

    /// Ends what it sends; nothing is taken from it any more.
    fn shut_down(&self) -> Result<(), Fault> {
        // The other may have reset it.
        let _ = self.socket.shutdown(Shutdown::Write);
        match (&*self.socket).write_all(b"late") {
            Ok(()) => Err(Fault::SentAfterShutdown),
            Err(_) => Ok(()),
        }
    }

    /// Reads; who peeks has seen the same before.
    fn read(&self, received: u64, buffer: &mut [u8]) -> io::Result<Result<usize, Fault>> {
        if self.plan.peeks {
            let seen = self.socket.peek(buffer)?;
            if let Err(fault) = self.check(received, &buffer[..seen]) {
                return Ok(Err(fault));
            }
        }
        (&*self.socket).read(buffer).map(Ok)
    }

    fn read_all(&self) -> Result<(), Fault> {
        let mut buffer = vec![0; self.read_size()];
        let (mut received, mut taken) = (0, 0);
        loop {
            if let Ending::Leave(at) = self.plan.ending
                && received >= at
            {
                let _ = self.socket.shutdown(Shutdown::Both); // ends the writer
                return Ok(());
            }
            if received == self.other.total() && self.closes_when_done() {
                return Ok(());
            }
            let started = Instant::now();
            match self.read(received, &mut buffer) {
                Ok(Ok(0)) => return self.check_end(received),
                Ok(count) => {
                    let count = count?;
                    self.check(received, &buffer[..count])?;
                    received += count as u64;
                    self.rest_after(&mut taken);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if started.elapsed() >= PATIENCE {
                        return Err(Fault::Stuck { received, sent: 0 });
                    }
                    WOKEN_EARLY.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => return Err(self.lost(received, &error.to_string())),
            }
        }
    }

    /// Reads of one byte are for short streams: a long one would take all day.
    fn read_size(&self) -> usize {
        let share = usize::try_from(self.other.total() / 4000).expect("streams are short");
        self.plan.read.max(share)
    }

    fn closes_when_done(&self) -> bool {
        self.plan.ending == Ending::CloseWhenDone
    }

    fn rest_before(&self, message: usize) -> Duration {
        Duration::from_micros(self.plan.rests.get(message).copied().unwrap_or(0))
    }

    fn rest_after(&self, taken: &mut u32) {
        *taken += 1;
        if self.plan.slow > 0 && *taken < SLOW_READS {
            thread::sleep(Duration::from_micros(self.plan.slow));
        }
    }

    fn check(&self, position: u64, bytes: &[u8]) -> Result<(), Fault> {
        if let Some(at) = self.gets.first_wrong(position, bytes) {
            return Err(Fault::Corrupted { at });
        }
        if position + bytes.len() as u64 > self.other.total() {
            return Err(Fault::TooMuch);
        }
        Ok(())
    }

    fn check_end(&self, received: u64) -> Result<(), Fault> {
        if received == self.other.total() {
            Ok(())
        } else {
            Err(self.lost(received, "end of stream"))
        }
    }

    fn lost(&self, at: u64, why: &str) -> Fault {
        Fault::Lost {
            at,
            of: self.other.total(),
            why: why.to_owned(),
        }
    }
}

/// Whether there is something to read, and room to write.
fn wait_for(socket: &TcpStream, read: bool, write: bool, wait: Duration) -> (bool, bool) {
    let wish = |wanted, event| if wanted { event } else { 0 };
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: wish(read, libc::POLLIN) | wish(write, libc::POLLOUT),
        revents: 0,
    };
    let wait = libc::timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(wait.subsec_nanos()),
    };
    // SAFETY: one valid pollfd and timespec, and no signal mask.
    let answer = unsafe { libc::ppoll(&raw mut poll, 1, &raw const wait, std::ptr::null()) };
    assert!(
        answer >= 0 || io::Error::last_os_error().kind() == ErrorKind::Interrupted,
        "poll failed"
    );
    let has = |events: i16| answer > 0 && poll.revents & events != 0;
    let broken = has(libc::POLLERR | libc::POLLHUP);
    (has(libc::POLLIN) || broken, has(libc::POLLOUT) || broken)
}
