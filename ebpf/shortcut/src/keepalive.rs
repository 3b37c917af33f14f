//! Probes of connections between two pods.

use aya_ebpf::{bindings::bpf_sock_ops, helpers::generated::bpf_setsockopt};

use crate::maps::CONFIG;

/// What goes through the shortcut is not seen on the way between two pods: whatever watches connections there must not
/// take this one for dead, and a way that is cut must be noticed.
#[inline(always)]
pub fn keep_alive(ops: *mut bpf_sock_ops) {
    const SOL_SOCKET: i32 = 1;
    const SO_KEEPALIVE: i32 = 9;
    const SOL_TCP: i32 = 6;
    const TCP_KEEPIDLE: i32 = 4;
    const TCP_KEEPINTVL: i32 = 5;
    set(ops, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(ops, SOL_TCP, TCP_KEEPIDLE, CONFIG.keepalive());
    set(ops, SOL_TCP, TCP_KEEPINTVL, CONFIG.keepalive_interval());
}

#[inline(always)]
fn set(ops: *mut bpf_sock_ops, level: i32, name: i32, mut value: u32) {
    // SAFETY: a valid context, and a value of the size given.
    let _may_fail = unsafe { bpf_setsockopt(ops.cast(), level, name, (&raw mut value).cast(), 4) };
}
