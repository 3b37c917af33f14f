//! What makes a socket unfit for the shortcut, before it becomes an end and afterwards.
//!
//! Afterwards it is marked, and never sent to, nor from, that way again. It stays in the sockhash: taking it out would
//! lose what it has not read yet.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sockopt},
    helpers::generated::bpf_set_retval,
    programs::SockoptContext,
};
use sidestep_ebpf_common::shortcut::{
    Count, MARK_LOWAT, MARK_REPAIR, MARK_ULP, MARK_ZEROCOPY, RECEIVES, SENDS,
};

use crate::{
    ctx::{self, count, load, peek, peek_long},
    maps::CONFIG,
};

/// Hazards of a socket, as marks.
#[derive(Clone, Copy)]
pub struct Hazards(u32);

impl Hazards {
    /// Completions of zero-copy sends would never come; an upper layer protocol has its own way to send.
    #[inline(always)]
    pub const fn forbid_sending(self) -> bool {
        self.0 & (MARK_ZEROCOPY | MARK_ULP | MARK_REPAIR) != 0
    }

    /// Who waits for more than a byte, or reads through an upper layer protocol, does not see redirected bytes in order.
    #[inline(always)]
    pub const fn forbid_receiving(self) -> bool {
        self.0 & (MARK_LOWAT | MARK_ULP | MARK_REPAIR) != 0
    }
}

/// What was set on a socket before it is established. What cannot be read is a hazard.
#[inline(always)]
pub fn present(sk: *mut bpf_sock) -> Hazards {
    let Some(sock) = ctx::address_of(sk) else {
        return Hazards(u32::MAX);
    };
    let mut found = 0;
    if peek(sock, CONFIG.sk_rcvlowat()) != Some(1) {
        found |= MARK_LOWAT;
    }
    let flags = peek_long(sock, CONFIG.sk_flags()).unwrap_or(u64::MAX);
    if flags >> (CONFIG.zerocopy_bit() & 63) & 1 != 0 {
        found |= MARK_ZEROCOPY;
    }
    if peek_long(sock, CONFIG.icsk_ulp()) != Some(0) {
        found |= MARK_ULP;
    }
    Hazards(found)
}

const SOL_SOCKET: i32 = 1;
const SO_RCVLOWAT: i32 = 18;
const SO_ZEROCOPY: i32 = 60;
const SOL_TCP: i32 = 6;
const TCP_REPAIR: i32 = 19;
const TCP_ULP: i32 = 31;
const EOPNOTSUPP: i32 = 95;

/// The option cannot be had on this socket.
pub struct Refused;

/// `cgroup/setsockopt`: marks an end before the option has its effect.
#[inline(always)]
pub fn on_option(ctx: &SockoptContext) -> Result<(), Refused> {
    let opt = ctx.sockopt;
    let mark = mark_of(opt);
    // The kernel takes the caller's own bytes, of whatever length. Otherwise it would refuse more than a page.
    // SAFETY: the kernel hands a valid context.
    unsafe { core::ptr::write_volatile(&raw mut (*opt).optlen, 0) };
    let Some(mark) = mark else {
        return Ok(());
    };
    let sk = load!(opt, __bindgen_anon_1.sk);
    if sk.is_null() {
        return Ok(());
    }
    let Some(state) = ctx::state(sk) else {
        return Ok(());
    };
    if state.flags & (SENDS | RECEIVES) == 0 {
        return Ok(());
    }
    if mark == MARK_ZEROCOPY && state.flags & SENDS == 0 {
        return Ok(()); // it sends as TCP does
    }
    state.marks |= mark;
    count(Count::Hazards);
    let refused = match mark {
        // An end sends by copying, whatever is asked for: nobody would ever tell the sender that it is done.
        MARK_ZEROCOPY => true,
        // What was redirected and is not read yet would be taken for bytes that the protocol has checked.
        MARK_ULP => ctx::address_of(sk).and_then(|sock| peek(sock, CONFIG.sk_rmem())) != Some(0),
        _ => false,
    };
    if refused {
        // SAFETY: takes a number.
        unsafe { bpf_set_retval(-EOPNOTSUPP) };
        return Err(Refused);
    }
    Ok(())
}

#[inline(always)]
fn mark_of(opt: *mut bpf_sockopt) -> Option<u32> {
    match (load!(opt, level), load!(opt, optname)) {
        (SOL_SOCKET, SO_ZEROCOPY) => Some(MARK_ZEROCOPY),
        (SOL_SOCKET, SO_RCVLOWAT) => Some(MARK_LOWAT),
        (SOL_TCP, TCP_ULP) => Some(MARK_ULP),
        (SOL_TCP, TCP_REPAIR) => Some(MARK_REPAIR),
        _ => None,
    }
}
