//! Both ends of a connection, and streams whose bytes tell their position.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Nothing here takes longer, unless it is stuck.
pub(super) const PATIENCE: Duration = Duration::from_millis(1500);

/// Both ends.
pub(super) struct Pair {
    /// Who connected.
    pub(super) near: TcpStream,
    /// Who accepted.
    pub(super) far: TcpStream,
}

/// What a check answers.
pub(super) type Outcome<T = ()> = Result<T, String>;

/// Connects to a listener, without blocking ends.
pub(super) fn pair(listener: &TcpListener) -> Outcome<Pair> {
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    pair_by(listener, address)
}

/// The same, by an address of the listener's.
pub(super) fn pair_by(listener: &TcpListener, address: SocketAddr) -> Outcome<Pair> {
    let make = || {
        let near = TcpStream::connect(address)?;
        let (far, _) = listener.accept()?;
        for end in [&near, &far] {
            end.set_nonblocking(true)?;
            end.set_nodelay(true)?;
        }
        std::io::Result::Ok(Pair { near, far })
    };
    make().map_err(|e| format!("no connection: {e}"))
}

/// Length of the pattern that streams are made of, a prime: positions with the same bytes are far from each other.
const PATTERN: usize = 65_537;
/// Most bytes that are looked at at once.
const MOST: usize = 64 << 10;

fn pattern() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mixed = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[1];
        // Once, and again as far as a read reaches over its end.
        (0..PATTERN + MOST).map(|i| mixed(i % PATTERN)).collect()
    })
}

/// Bytes of a stream from a position on, at most [`MOST`].
pub(super) fn bytes(position: usize, count: usize) -> &'static [u8] {
    let start = position % PATTERN;
    &pattern()[start..start + count.min(MOST)]
}

/// Sends from a position on until it is all sent; waits for room.
pub(super) fn send(mut to: &TcpStream, position: usize, count: usize) -> Outcome {
    let mut at = position;
    let deadline = Instant::now() + PATIENCE;
    while at < position + count {
        match to.write(bytes(at, position + count - at)) {
            Ok(sent) => at += sent,
            Err(e) if e.kind() == ErrorKind::WouldBlock => wait(to, PollFlags::OUT, deadline)?,
            Err(e) => return Err(format!("cannot send: {e}")),
        }
    }
    Ok(())
}

/// Sends so much in messages of a kilobyte.
pub(super) fn send_many(to: &TcpStream, position: usize, count: usize) -> Outcome {
    let end = position + count;
    let mut starts = (position..end).step_by(1000);
    starts.try_for_each(|at| send(to, at, 1000.min(end - at)))
}

/// Reads so many bytes and compares them with the stream's.
pub(super) fn receive(from: &TcpStream, position: usize, count: usize) -> Outcome {
    let mut at = position;
    let mut buffer = vec![0; 32 << 10];
    while at < position + count {
        let most = buffer.len().min(position + count - at);
        let got = read(from, &mut buffer[..most])?;
        if got == 0 {
            return Err(format!("ends at {at}, and not at {}", position + count));
        }
        check(at, &buffer[..got])?;
        at += got;
    }
    Ok(())
}

/// One read, when there is something.
pub(super) fn read(mut from: &TcpStream, buffer: &mut [u8]) -> Outcome<usize> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match from.read(buffer) {
            Ok(got) => return Ok(got),
            Err(e) if e.kind() == ErrorKind::WouldBlock => wait(from, PollFlags::IN, deadline)?,
            Err(e) => return Err(format!("cannot read: {e}")),
        }
    }
}

/// Compares bytes with the stream's.
pub(super) fn check(position: usize, got: &[u8]) -> Outcome {
    let want = bytes(position, got.len());
    if want == got {
        return Ok(());
    }
    let wrong = want.iter().zip(got).position(|(want, got)| want != got);
    Err(format!("another byte at {}", position + wrong.unwrap_or(0)))
}

/// The stream ends here.
pub(super) fn expect_end(from: &TcpStream) -> Outcome {
    match read(from, &mut [0; 16])? {
        0 => Ok(()),
        more => Err(format!("{more} bytes too many")),
    }
}

/// Waits until there is something to read.
pub(super) fn wait_readable(socket: &TcpStream) -> Outcome {
    wait(socket, PollFlags::IN, Instant::now() + PATIENCE)
}

fn wait(socket: &TcpStream, events: PollFlags, deadline: Instant) -> Outcome {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    };
    let mut polled = [PollFd::from_borrowed_fd(socket.as_fd(), events)];
    match poll(&mut polled, Some(&timeout)) {
        Ok(0) => Err("stuck".to_owned()),
        Ok(_) => Ok(()),
        Err(e) => Err(format!("cannot wait: {e}")),
    }
}
