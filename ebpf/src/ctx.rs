//! What the interception hooks read and write of the kernel's context structs, and what is remembered with a socket.

use core::hint::black_box;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use sidestep_ebpf_common::{Addr, Proto, SockState};
use sidestep_ebpf_hook::{
    AF_INET,
    context::some,
    load, load6,
    memory::{stored, stored_or_new},
    store,
};

use crate::maps::SOCKS;

/// IPPROTO_TCP.
pub const TCP: u32 = 6;
/// IPPROTO_UDP.
pub const UDP: u32 = 17;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;

/// Which of a pair of hooks runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The hook for AF_INET sockets.
    V4,
    /// The hook for AF_INET6 sockets, IPv4-mapped addresses included.
    V6,
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
    // SAFETY: the map's type.
    unsafe { stored(&SOCKS, sk) }
}

/// The same, made (all zero) where it is missing. `None` only where the kernel has no memory.
#[inline(always)]
pub fn state_or_new<'a, T>(sk: *mut T) -> Option<&'a mut SockState> {
    // SAFETY: the map's type.
    unsafe { stored_or_new(&SOCKS, sk) }
}
