//! Connections whose speed is measured: a message there and back, and a stream one way. Every socket is set not to block
//! before it is connected, as that of a proxy or of a modern runtime is.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use sidestep_kit::actor::{
    protocol::{Errno, Family, Kind},
    sys,
};

fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
    let os = |errno: Errno| io::Error::from_raw_os_error(errno.0);
    let socket = sys::socket(family, Kind::Tcp).map_err(os)?;
    sys::connect(socket.as_fd(), to, Duration::from_secs(5)).map_err(os)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Waits until the socket is ready.
fn wait(socket: &TcpStream, events: i16) {
    use std::os::fd::AsRawFd;
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events,
        revents: 0,
    };
    // SAFETY: one valid pollfd.
    unsafe { libc::poll(&raw mut poll, 1, 10_000) };
}

fn write_all(mut to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(to, libc::POLLOUT),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read(mut from: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => wait(from, libc::POLLIN),
            other => return other,
        }
    }
}

pub(super) fn echo(socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_nodelay(true)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = read(socket, &mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        write_all(socket, &buffer[..count])?;
    }
}

pub(super) fn drain(socket: &TcpStream) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let mut buffer = vec![0; 256 << 10];
    while read(socket, &mut buffer)? > 0 {}
    write_all(socket, b".")
}

pub(super) fn ping(to: SocketAddr, size: usize, count: u64) -> io::Result<u64> {
    let socket = connect(to)?;
    let message = vec![7; size];
    let mut buffer = vec![0; size];
    let start = Instant::now();
    for _ in 0..count {
        write_all(&socket, &message)?;
        let mut got = 0;
        while got < size {
            got += read(&socket, &mut buffer[got..])?;
        }
    }
    Ok(nanoseconds(start))
}

pub(super) fn pour(to: SocketAddr, size: usize, count: u64) -> io::Result<u64> {
    let socket = connect(to)?;
    let message = vec![7; size];
    let start = Instant::now();
    for _ in 0..count {
        write_all(&socket, &message)?;
    }
    socket.shutdown(std::net::Shutdown::Write)?;
    read(&socket, &mut [0])?;
    Ok(nanoseconds(start))
}

fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
