//! Sockets of another process.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// A descriptor of another process, as one of our own: `pidfd_getfd`.
pub(super) fn take(process: u32, descriptor: i32) -> io::Result<OwnedFd> {
    let opened = |number: libc::c_long| match i32::try_from(number) {
        // SAFETY: what the two calls return is a new descriptor, and nobody else's.
        Ok(number @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: both calls take numbers only.
    let process = opened(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) })?;
    // SAFETY: as above.
    opened(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), descriptor, 0) })
}
