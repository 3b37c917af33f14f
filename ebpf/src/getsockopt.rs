//! `cgroup/getsockopt`: SO_ORIGINAL_DST. The program runs after the kernel's own answer, which without NAT is an error.

use aya_ebpf::{bindings::bpf_sockopt, programs::SockoptContext};
use sidestep_ebpf_common::{FlowKey, Origin, flow::ACCEPTED};
use sidestep_ebpf_hook::{
    AF_INET, AF_INET6,
    context::{netns_cookie, some},
    load, store,
};

use crate::{ctx, maps::FLOWS, pod};

const SOL_IP: i32 = 0;
const SOL_IPV6: i32 = 41;
/// `SO_ORIGINAL_DST` and `IP6T_SO_ORIGINAL_DST`.
const ORIGINAL_DST: i32 = 80;
/// The kernel copies at most a page for the program, and takes a longer length left as it is for an error (EFAULT). Where pages
/// are larger, as on some arm64 kernels, lengths between the two get the kernel's own answer.
const PAGE: i32 = 4096;
const SOCKADDR_IN: u16 = 16;
const SOCKADDR_IN6: u16 = 28;
const LISTEN: u32 = 10;
const EINVAL: i32 = 22;

#[inline(always)]
pub fn run(ctx: &SockoptContext) {
    let ctx = ctx.sockopt;
    if !answer(ctx) && load!(ctx, optlen) > PAGE {
        store!(ctx, optlen = 0); // "nothing was changed"
    }
}

/// Whether an answer was written.
#[inline(always)]
fn answer(ctx: *mut bpf_sockopt) -> bool {
    let level = load!(ctx, level);
    if load!(ctx, optname) != ORIGINAL_DST || (level != SOL_IP && level != SOL_IPV6) {
        return false;
    }
    let Some(origin) = origin(ctx) else {
        return false;
    };
    match (level, origin.addr.is_v4()) {
        (SOL_IP, true) => write_v4(ctx, &origin),
        (SOL_IPV6, false) => write_v6(ctx, &origin),
        _ => false,
    }
}

/// Where the connection of this socket wanted to go.
#[inline(always)]
fn origin(ctx: *mut bpf_sockopt) -> Option<Origin> {
    let sk = some(load!(ctx, __bindgen_anon_1.sk))?;
    if let Some(state) = ctx::state(sk) {
        if state.origin.is_some() {
            return Some(state.origin);
        }
        if state.flags & ACCEPTED == 0 {
            return None; // a socket the pod made, on a connection that was not captured
        }
    }
    let cookie = netns_cookie(ctx);
    let pod = pod::active(cookie)?;
    let (addr, port) = (ctx::local_addr(sk), ctx::local_port(sk));
    // An MPTCP socket: what was kept is its subflow's.
    let key = FlowKey::new(
        cookie,
        ctx::remote_addr(sk),
        ctx::remote_port(sk),
        addr,
        port,
    );
    // SAFETY: copied at once.
    if let Some(origin) = unsafe { FLOWS.get(key) } {
        return Some(*origin);
    }
    if load!(sk, state) == LISTEN || ctx::remote_port(sk) == 0 {
        return None;
    }
    // From outside: the connection arrived at the address it wanted, there was no NAT.
    pod.record.captures(&addr).then(|| Origin::new(addr, port))
}

/// Writes a `struct sockaddr_in`.
#[inline(always)]
fn write_v4(ctx: *mut bpf_sockopt, origin: &Origin) -> bool {
    let (start, end) = buffer(ctx);
    if start + usize::from(SOCKADDR_IN) > end {
        return too_short(ctx);
    }
    let out = start as *mut u32;
    // SAFETY: the verifier has seen the bound checked.
    unsafe {
        out.write_volatile(head(AF_INET, origin.port));
        out.add(1).write_volatile(origin.addr.v4_word());
        out.add(2).write_volatile(0);
        out.add(3).write_volatile(0);
    }
    succeed(ctx, SOCKADDR_IN)
}

/// Writes a `struct sockaddr_in6`.
#[inline(always)]
fn write_v6(ctx: *mut bpf_sockopt, origin: &Origin) -> bool {
    let (start, end) = buffer(ctx);
    if start + usize::from(SOCKADDR_IN6) > end {
        return too_short(ctx);
    }
    let out = start as *mut u32;
    // SAFETY: the verifier has seen the bound checked.
    unsafe {
        out.write_volatile(head(AF_INET6, origin.port));
        out.add(1).write_volatile(0);
        out.add(2).write_volatile(origin.addr.0[0]);
        out.add(3).write_volatile(origin.addr.0[1]);
        out.add(4).write_volatile(origin.addr.0[2]);
        out.add(5).write_volatile(origin.addr.0[3]);
        out.add(6).write_volatile(0);
    }
    succeed(ctx, SOCKADDR_IN6)
}

/// Family (host byte order) and port (network byte order) as the first word of a socket address.
#[inline(always)]
fn head(family: u32, port: u16) -> u32 {
    family | u32::from(port.to_be()) << 16
}

#[inline(always)]
fn buffer(ctx: *mut bpf_sockopt) -> (usize, usize) {
    (
        load!(ctx, __bindgen_anon_2.optval) as usize,
        load!(ctx, __bindgen_anon_3.optval_end) as usize,
    )
}

/// What connection tracking says to a buffer without room for the address.
#[inline(always)]
fn too_short(ctx: *mut bpf_sockopt) -> bool {
    store!(ctx, retval = -EINVAL);
    true
}

#[inline(always)]
fn succeed(ctx: *mut bpf_sockopt, len: u16) -> bool {
    store!(ctx, optlen = i32::from(len));
    store!(ctx, retval = 0);
    true
}
