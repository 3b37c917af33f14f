//! The socket system calls, each as one safe function with a typed error. Sockets never block: waiting is `poll` with a
//! deadline.

use std::{
    ffi::c_void,
    mem::{size_of, zeroed},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::{Duration, Instant},
};

use super::protocol::{Errno, Family, Kind};

/// `SO_ORIGINAL_DST` and `IP6T_SO_ORIGINAL_DST`.
const ORIGINAL_DST: i32 = 80;

type Result<T> = std::result::Result<T, Errno>;

/// Makes a non-blocking socket.
pub fn socket(family: Family, kind: Kind) -> Result<OwnedFd> {
    let domain = match family {
        Family::V4 => libc::AF_INET,
        Family::V6 => libc::AF_INET6,
    };
    let (ty, protocol) = match kind {
        Kind::Tcp => (libc::SOCK_STREAM, libc::IPPROTO_TCP),
        Kind::Mptcp => (libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
        Kind::Udp => (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        Kind::RawTcp => (libc::SOCK_RAW, libc::IPPROTO_TCP),
        Kind::RawIp => (libc::SOCK_RAW, libc::IPPROTO_RAW),
        Kind::RawIcmp => (libc::SOCK_RAW, libc::IPPROTO_ICMP),
    };
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes no pointers.
    let fd = check(unsafe { libc::socket(domain, ty | flags, protocol) })?;
    // SAFETY: the descriptor is new, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// bind
pub fn bind(socket: BorrowedFd<'_>, address: SocketAddr) -> Result<()> {
    let (raw, length) = to_raw(address);
    // SAFETY: `raw` is a valid socket address of `length` bytes.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), length) }).map(drop)
}

/// connect, waiting until it is established, refused or late.
pub fn connect(socket: BorrowedFd<'_>, address: SocketAddr, timeout: Duration) -> Result<()> {
    let (raw, length) = to_raw(address);
    // SAFETY: `raw` is a valid socket address of `length` bytes.
    let start =
        || check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const raw).cast(), length) });
    match start() {
        Err(Errno(libc::EINPROGRESS)) => {
            wait(socket, libc::POLLOUT, timeout)?;
            // The second call only fetches the outcome, and leaves a socket that failed ready for another try.
            start().map(drop)
        }
        other => other.map(drop),
    }
}

/// connect with `AF_UNSPEC`: the socket has no peer any more.
pub fn disconnect(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: all zero is a valid value of this plain struct, and its family is AF_UNSPEC.
    let raw: libc::sockaddr_in = unsafe { zeroed() };
    // SAFETY: `raw` is as long as it says.
    check(unsafe {
        libc::connect(
            socket.as_raw_fd(),
            (&raw const raw).cast(),
            length_of::<libc::sockaddr_in>(),
        )
    })
    .map(drop)
}

/// listen
pub fn listen(socket: BorrowedFd<'_>, backlog: i32) -> Result<()> {
    // SAFETY: listen takes no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map(drop)
}

/// accept, waiting for a connection.
pub fn accept(socket: BorrowedFd<'_>, timeout: Duration) -> Result<(OwnedFd, SocketAddr)> {
    let deadline = Instant::now() + timeout;
    loop {
        wait(
            socket,
            libc::POLLIN,
            deadline.saturating_duration_since(Instant::now()),
        )?;
        let (mut raw, mut length) = empty();
        // SAFETY: `raw` has room for `length` bytes.
        let accepted = check(unsafe {
            libc::accept4(
                socket.as_raw_fd(),
                (&raw mut raw).cast(),
                &raw mut length,
                libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            )
        });
        match accepted {
            Err(Errno(libc::EAGAIN)) => {}
            Err(errno) => return Err(errno),
            // SAFETY: the descriptor is new, so nobody else owns it.
            Ok(fd) => return Ok((unsafe { OwnedFd::from_raw_fd(fd) }, from_raw(&raw)?)),
        }
    }
}

/// shutdown in both directions; a listener stops listening.
pub fn shutdown(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: shutdown takes no pointers.
    check(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RDWR) }).map(drop)
}

/// getpeername
pub fn peer_name(socket: BorrowedFd<'_>) -> Result<SocketAddr> {
    let (mut raw, mut length) = empty();
    // SAFETY: `raw` has room for `length` bytes.
    check(unsafe {
        libc::getpeername(socket.as_raw_fd(), (&raw mut raw).cast(), &raw mut length)
    })?;
    from_raw(&raw)
}

/// getsockname
pub fn socket_name(socket: BorrowedFd<'_>) -> Result<SocketAddr> {
    let (mut raw, mut length) = empty();
    // SAFETY: `raw` has room for `length` bytes.
    check(unsafe {
        libc::getsockname(socket.as_raw_fd(), (&raw mut raw).cast(), &raw mut length)
    })?;
    from_raw(&raw)
}

/// `SO_ORIGINAL_DST` with the 128-byte buffer Envoy uses.
pub fn original_destination(socket: BorrowedFd<'_>, family: Family) -> Result<SocketAddr> {
    let level = match family {
        Family::V4 => libc::SOL_IP,
        Family::V6 => libc::SOL_IPV6,
    };
    let (mut raw, _) = empty();
    // SAFETY: the struct is plain bytes, 128 of them, and not used otherwise while the slice lives.
    let bytes = unsafe {
        std::slice::from_raw_parts_mut(
            (&raw mut raw).cast::<u8>(),
            size_of::<libc::sockaddr_storage>(),
        )
    };
    option(socket, level, ORIGINAL_DST, bytes)?;
    from_raw(&raw)
}

/// getsockopt; returns how many bytes the kernel wrote.
pub fn option(socket: BorrowedFd<'_>, level: i32, name: i32, buffer: &mut [u8]) -> Result<usize> {
    let mut length = length(buffer.len());
    // SAFETY: the kernel writes at most `length` bytes to `buffer`, which has them.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    Ok(length as usize)
}

/// setsockopt
pub fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> Result<()> {
    // SAFETY: `value` has as many bytes as given.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast::<c_void>(),
            length(value.len()),
        )
    })
    .map(drop)
}

/// send, or sendto where an address is given.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], to: Option<SocketAddr>) -> Result<usize> {
    let raw = to.map(to_raw);
    let (address, length) = raw.as_ref().map_or((std::ptr::null(), 0), |(raw, length)| {
        (std::ptr::from_ref(raw).cast(), *length)
    });
    // SAFETY: `bytes` and, unless null, the address are as long as given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            libc::MSG_NOSIGNAL,
            address,
            length,
        )
    };
    usize::try_from(sent).map_err(|_| Errno::last())
}

/// recvfrom, waiting for data; the address is given for datagrams only.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    timeout: Duration,
) -> Result<(usize, Option<SocketAddr>)> {
    wait(socket, libc::POLLIN, timeout)?;
    let (mut raw, mut length) = empty();
    // SAFETY: `buffer` and `raw` have room for what is given as their length.
    let received = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            (&raw mut raw).cast(),
            &raw mut length,
        )
    };
    let count = usize::try_from(received).map_err(|_| Errno::last())?;
    Ok((count, from_raw(&raw).ok()))
}

/// `SO_LINGER` 0: when the socket is closed, the peer gets a reset.
pub fn reset_on_close(socket: BorrowedFd<'_>) -> Result<()> {
    let linger = [1_i32.to_ne_bytes(), 0_i32.to_ne_bytes()].concat();
    set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger)
}

/// Takes these ids for good: real and effective (so also filesystem) ones, and supplementary groups.
pub fn become_user(uids: (u32, u32), gids: (u32, u32), groups: &[u32]) -> Result<()> {
    // SAFETY: `groups` is as long as given; the other calls take no pointers.
    unsafe {
        check(libc::setgroups(groups.len(), groups.as_ptr()))?;
        check(libc::setresgid(gids.0, gids.1, gids.1))?;
        check(libc::setresuid(uids.0, uids.1, uids.1))?;
    }
    Ok(())
}

/// Waits until one of poll's events is there.
pub fn wait(socket: BorrowedFd<'_>, events: i16, timeout: Duration) -> Result<()> {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events,
        revents: 0,
    };
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: one valid pollfd.
    match check(unsafe { libc::poll(&raw mut poll, 1, timeout) })? {
        0 => Err(Errno::TIMED_OUT),
        _ => Ok(()),
    }
}

fn check(result: i32) -> Result<i32> {
    if result < 0 {
        Err(Errno::last())
    } else {
        Ok(result)
    }
}

fn length(bytes: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes).expect("a buffer of less than 4 GiB")
}

fn length_of<T>() -> libc::socklen_t {
    length(size_of::<T>())
}

fn empty() -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: all zero is a valid value of this plain struct.
    (unsafe { zeroed() }, length_of::<libc::sockaddr_storage>())
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "address families are small"
)]
fn to_raw(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    let (mut raw, _) = empty();
    match address {
        SocketAddr::V4(v4) => {
            let raw = (&raw mut raw).cast::<libc::sockaddr_in>();
            // SAFETY: a sockaddr_storage has the size and alignment of every socket address.
            unsafe {
                (*raw).sin_family = libc::AF_INET as u16;
                (*raw).sin_port = v4.port().to_be();
                (*raw).sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
            }
        }
        SocketAddr::V6(v6) => {
            let raw = (&raw mut raw).cast::<libc::sockaddr_in6>();
            // SAFETY: as above.
            unsafe {
                (*raw).sin6_family = libc::AF_INET6 as u16;
                (*raw).sin6_port = v6.port().to_be();
                (*raw).sin6_addr.s6_addr = v6.ip().octets();
                (*raw).sin6_scope_id = v6.scope_id();
            }
        }
    }
    let length = match address {
        SocketAddr::V4(_) => length_of::<libc::sockaddr_in>(),
        SocketAddr::V6(_) => length_of::<libc::sockaddr_in6>(),
    };
    (raw, length)
}

fn from_raw(raw: &libc::sockaddr_storage) -> Result<SocketAddr> {
    match i32::from(raw.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is this struct.
            let v4 = unsafe { &*std::ptr::from_ref(raw).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
            Ok(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is this struct.
            let v6 = unsafe { &*std::ptr::from_ref(raw).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Ok(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
        }
        _ => Err(Errno(libc::EAFNOSUPPORT)),
    }
}
