//! What this process asks of the kernel for itself.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling thread into a new network namespace, in which there is nothing but a loopback device that is down.
pub fn enter_new_netns() -> io::Result<()> {
    // SAFETY: unlike with `UnshareFlags::FILES`, no descriptor that another thread knows changes its meaning.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?)
}

/// Hands a connection to a protocol above TCP, such as `tls` (`TCP_ULP`).
pub fn set_upper_layer(socket: impl AsFd, protocol: &[u8]) -> io::Result<()> {
    // SAFETY: a live descriptor, and as many bytes as given.
    let answer = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_ULP,
            protocol.as_ptr().cast(),
            libc::socklen_t::try_from(protocol.len()).map_err(io::Error::other)?,
        )
    };
    if answer == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives the kernel back what was allocated and freed: glibc keeps it, of every thread's heap.
pub fn trim_heaps() {
    // SAFETY: takes a number, and locks the heaps itself (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}
