//! Where a captured connection is sent, and how it keeps the source address it would have had.
//!
//! Connecting to one of the pod's own addresses has that address as its source. So a socket that cannot be bound here
//! (it has a port or a device already) goes to the address that is to be its source. An unbound one is bound to it and
//! goes to a loopback address: on loopback the kernel reuses ports in TIME_WAIT, and IPv4 has 65,536 addresses to
//! spread over, where iptables has one tuple for every connection of the pod.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr, sockaddr},
    helpers::generated::bpf_bind,
};
use sidestep_ebpf_common::{Addr, flow::BOUND_BY_US};
use sidestep_ebpf_hook::{AF_INET, AF_INET6, load};

use crate::ctx::{self, Family};

const SPREAD: u32 = 0x7f80_0000; // 127.128.0.0/16

/// How a captured connection leaves.
pub struct Plan {
    /// The original destination, which chooses among spread addresses.
    pub dst: Addr,
    /// Its port.
    pub port: u16,
    /// The source it would have had, or unspecified.
    pub source: Addr,
    /// Whether the proxy listens on every loopback address on this port, not only on the first.
    pub spread: bool,
}

/// Binds the socket to its source where possible; the answer is the address to connect to, and whether it was bound.
#[inline(always)]
pub fn run(
    ctx: *mut bpf_sock_addr,
    sk: *mut bpf_sock,
    family: Family,
    plan: &Plan,
) -> (Addr, bool) {
    let loopback = plan.dst.loopback_of_family();
    if plan.source.is_unspecified() || plan.source.is_loopback() {
        return (loopback, false);
    }
    let bound = ctx::local_addr(sk);
    if load!(sk, bound_dev_if) != 0 || bound.is_unspecified() && ctx::local_port(sk) != 0 {
        return (if plan.spread { plan.source } else { loopback }, false);
    }
    let by_us = bound.is_unspecified() && bind(ctx, family, &plan.source).is_ok();
    if !by_us && bound.is_unspecified() {
        // The source is no address of the pod any more; connecting to it would leave the pod.
        return (loopback, false);
    }
    if plan.spread && plan.dst.is_v4() {
        (
            Addr::v4((SPREAD | hash(&plan.dst, plan.port)).to_be()),
            by_us,
        )
    } else {
        (loopback, by_us)
    }
}

/// Gives the source address back, so that the next connect chooses its own. A socket that was once bound counts as bound
/// for good: the kernel then keeps whatever address the next connect chooses, and that must be given back too.
#[inline(always)]
pub fn release(ctx: *mut bpf_sock_addr, family: Family, flags: u32) {
    if flags & BOUND_BY_US != 0 {
        // Fails where the socket has a port again, and then it is no longer ours to undo.
        let _: Result<(), ()> = bind(ctx, family, &Addr::UNSPECIFIED);
    }
}

/// 16 bits that differ with the destination (Fibonacci hashing).
#[inline(always)]
fn hash(dst: &Addr, port: u16) -> u32 {
    (dst.v4_word() ^ u32::from(port).rotate_left(13)).wrapping_mul(0x9e37_79b1) >> 16
}

/// `struct sockaddr_in6`, whose first eight bytes are also those of `struct sockaddr_in` up to its padding.
#[repr(C)]
struct SockAddr {
    family: u16,
    port: u16,
    v4_or_flow: u32,
    v6: [u32; 4],
    scope: u32,
}

/// `bpf_bind` to an address and no port (the kernel then delays the choice of the port until connect).
#[inline(always)]
fn bind(ctx: *mut bpf_sock_addr, family: Family, addr: &Addr) -> Result<(), ()> {
    let (af, v4, v6, len) = match family {
        Family::V4 => (AF_INET, addr.v4_word(), [0; 4], 16),
        Family::V6 => (AF_INET6, 0, addr.0, 28),
    };
    let mut to = SockAddr {
        family: af as u16,
        port: 0,
        v4_or_flow: v4,
        v6,
        scope: 0,
    };
    // SAFETY: a valid context, and a structure on the stack of at least `len` bytes.
    let answer = unsafe { bpf_bind(ctx, (&raw mut to).cast::<sockaddr>(), len) };
    if answer == 0 { Ok(()) } else { Err(()) }
}
