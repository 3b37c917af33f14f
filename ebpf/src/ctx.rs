//! The kernel's context structs, read and written the only way the verifier accepts: one word at a time. The compiler
//! would merge neighbouring accesses, and loads of two branches into one at a computed offset, which is arithmetic on a
//! socket pointer. Volatile accesses prevent the first, `black_box` the second.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr, bpf_sock_ops},
    helpers::generated::{bpf_get_netns_cookie, bpf_sk_storage_get},
};
use core::{ffi::c_void, hint::black_box};
use sidestep_ebpf_common::{Addr, Proto, SockState};

use crate::maps::SOCKS;

/// AF_INET.
pub const AF_INET: u32 = 2;
/// AF_INET6.
pub const AF_INET6: u32 = 10;
/// IPPROTO_TCP.
pub const TCP: u32 = 6;
/// IPPROTO_UDP.
pub const UDP: u32 = 17;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const SK_STORAGE_CREATE: u64 = 1;

/// Which of a pair of hooks runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The hook for AF_INET sockets.
    V4,
    /// The hook for AF_INET6 sockets, IPv4-mapped addresses included.
    V6,
}

/// One volatile load of a context field.
macro_rules! load {
    ($ptr:expr, $($field:tt)+) => {
        // SAFETY: the kernel hands a valid context; the verifier checks field and width.
        unsafe { core::ptr::read_volatile(&raw const (*$ptr).$($field)+) }
    };
}
/// One volatile store to a context field.
macro_rules! store {
    ($ptr:expr, $($field:ident).+ $([$i:literal])? = $value:expr) => {
        // SAFETY: as for `load!`.
        unsafe { core::ptr::write_volatile(&raw mut (*$ptr).$($field).+ $([$i])?, $value) }
    };
}
/// Four loads: an IPv6 address.
macro_rules! load6 {
    ($ptr:expr, $field:ident) => {
        sidestep_ebpf_common::Addr([
            crate::ctx::load!($ptr, $field[0]),
            crate::ctx::load!($ptr, $field[1]),
            crate::ctx::load!($ptr, $field[2]),
            crate::ctx::load!($ptr, $field[3]),
        ])
    };
}
pub(crate) use {load, load6, store};

/// The cookie of the network namespace of a context's socket.
#[inline(always)]
pub fn netns_cookie<T>(ctx: *mut T) -> u64 {
    // SAFETY: takes any context of the hooks used here, and cannot fail for a socket.
    unsafe { bpf_get_netns_cookie(ctx.cast()) }
}

/// The address a socket call names.
#[inline(always)]
pub fn user_addr(ctx: *mut bpf_sock_addr, family: Family) -> (Addr, u16) {
    let port = u16::from_be(load!(ctx, user_port) as u16);
    let addr = match family {
        Family::V4 => Addr::v4(load!(ctx, user_ip4)),
        Family::V6 => load6!(ctx, user_ip6),
    };
    (addr, port)
}

/// Replaces the address a socket call names.
#[inline(always)]
pub fn set_user_addr(ctx: *mut bpf_sock_addr, family: Family, addr: &Addr, port: u16) {
    match family {
        Family::V4 => store!(ctx, user_ip4 = addr.v4_word()),
        Family::V6 => {
            store!(ctx, user_ip6[0] = addr.0[0]);
            store!(ctx, user_ip6[1] = addr.0[1]);
            store!(ctx, user_ip6[2] = addr.0[2]);
            store!(ctx, user_ip6[3] = addr.0[3]);
        }
    }
    store!(ctx, user_port = u32::from(port.to_be()));
}

/// Sets the source address of a datagram sent from an unbound socket.
#[inline(always)]
pub fn set_source(ctx: *mut bpf_sock_addr, family: Family, addr: &Addr) {
    match family {
        Family::V4 => store!(ctx, msg_src_ip4 = addr.v4_word()),
        Family::V6 => {
            store!(ctx, msg_src_ip6[0] = addr.0[0]);
            store!(ctx, msg_src_ip6[1] = addr.0[1]);
            store!(ctx, msg_src_ip6[2] = addr.0[2]);
            store!(ctx, msg_src_ip6[3] = addr.0[3]);
        }
    }
}

/// TCP or UDP, or neither.
#[inline(always)]
pub fn proto(ctx: *mut bpf_sock_addr) -> Option<Proto> {
    match (load!(ctx, type_), load!(ctx, protocol)) {
        (SOCK_STREAM, TCP) => Some(Proto::Tcp),
        (SOCK_DGRAM, UDP) => Some(Proto::Udp),
        _ => None,
    }
}

/// The socket of an address hook.
#[inline(always)]
pub fn addr_sock(ctx: *mut bpf_sock_addr) -> Option<*mut bpf_sock> {
    some(load!(ctx, __bindgen_anon_1.sk))
}

/// The socket of a `sockops` callback.
#[inline(always)]
pub fn ops_sock(ctx: *mut bpf_sock_ops) -> Option<*mut bpf_sock> {
    some(load!(ctx, __bindgen_anon_2.sk))
}

/// A socket pointer that may be null.
#[inline(always)]
pub fn some(sk: *mut bpf_sock) -> Option<*mut bpf_sock> {
    if sk.is_null() { None } else { Some(sk) }
}

/// A socket's own address; unspecified where it is not bound.
#[inline(always)]
pub fn local_addr(sk: *mut bpf_sock) -> Addr {
    if load!(sk, family) == AF_INET {
        match black_box(load!(sk, src_ip4)) {
            0 => Addr::UNSPECIFIED,
            word => Addr::v4(word),
        }
    } else {
        load6!(sk, src_ip6)
    }
}

/// A socket's peer.
#[inline(always)]
pub fn remote_addr(sk: *mut bpf_sock) -> Addr {
    if load!(sk, family) == AF_INET {
        Addr::v4(black_box(load!(sk, dst_ip4)))
    } else {
        load6!(sk, dst_ip6)
    }
}

/// A socket's own port, host byte order.
#[inline(always)]
pub fn local_port(sk: *mut bpf_sock) -> u16 {
    load!(sk, src_port) as u16
}

/// A socket's peer's port, host byte order.
#[inline(always)]
pub fn remote_port(sk: *mut bpf_sock) -> u16 {
    u16::from_be(load!(sk, dst_port))
}

/// What is remembered with a socket. `sk` may also be the context of `cgroup/sock_create`, which stands for its socket.
#[inline(always)]
pub fn state<'a, T>(sk: *mut T) -> Option<&'a mut SockState> {
    storage(sk, 0)
}

/// The same, made (all zero) where it is missing. `None` only where the kernel has no memory.
#[inline(always)]
pub fn state_or_new<'a, T>(sk: *mut T) -> Option<&'a mut SockState> {
    storage(sk, SK_STORAGE_CREATE)
}

#[inline(always)]
fn storage<'a, T>(sk: *mut T, flags: u64) -> Option<&'a mut SockState> {
    let map = (&raw const SOCKS).cast_mut().cast::<c_void>();
    // SAFETY: the helper returns null or the value, which lives as long as the socket, and that outlives the hook. Two
    // CPUs may write it at once; each field is a word of its own and socket calls hold the socket's lock.
    unsafe {
        bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags)
            .cast::<SockState>()
            .as_mut()
    }
}
