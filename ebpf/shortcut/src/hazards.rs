//! What makes a socket unfit for the shortcut, before it becomes an end and afterwards.
//!
//! An end is marked, and from then on its connection stays with TCP. It stays in the sockhash: taking it out would lose
//! what it has not read yet. Options that do harm to a socket in a sockhash are refused.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sockopt},
    helpers::generated::bpf_set_retval,
    programs::SockoptContext,
};
use sidestep_ebpf_common::shortcut::{Count, IN_SOCKHASH, SENDS};
use sidestep_ebpf_hook::{
    load,
    memory::{Known, address_of, peek},
    store,
};

use crate::{
    ctx::{self, count},
    maps::CONFIG,
};

/// Hazards of a socket.
#[derive(Clone, Copy)]
pub struct Hazards {
    zero_copy: bool,
    low_water: bool,
    upper_layer: bool,
}

impl Hazards {
    /// Completions of zero-copy sends would never come; an upper layer protocol has its own way to send.
    #[inline(always)]
    pub const fn forbid_sending(self) -> bool {
        self.zero_copy || self.upper_layer
    }

    /// Who waits for more than a byte, or reads through an upper layer protocol, does not see redirected bytes in order.
    #[inline(always)]
    pub const fn forbid_receiving(self) -> bool {
        self.low_water || self.upper_layer
    }
}

/// What was set on a socket before it is established.
#[inline(always)]
pub fn present(tcp: Known) -> Hazards {
    let flags = tcp.long(CONFIG.sk_flags());
    Hazards {
        zero_copy: flags >> (CONFIG.zerocopy_bit() & 63) & 1 != 0,
        low_water: tcp.word(CONFIG.sk_rcvlowat()) != 1,
        upper_layer: tcp.follow(CONFIG.icsk_ulp()).is_some(),
    }
}

const SOL_SOCKET: i32 = 1;
const SO_RCVLOWAT: i32 = 18;
const SO_ZEROCOPY: i32 = 60;
const SOL_TCP: i32 = 6;
const TCP_REPAIR: i32 = 19;
const TCP_ULP: i32 = 31;
const TCP_REPAIR_ON: i32 = 1;
const EOPNOTSUPP: i32 = 95;

/// The option cannot be had on this socket.
pub struct Refused;

/// `cgroup/setsockopt`: marks an end before the option has its effect, or refuses it. The kernel runs it under the
/// socket's lock, as it runs [`crate::sockops`].
#[inline(always)]
pub fn on_option(ctx: &SockoptContext) -> Result<(), Refused> {
    let opt = ctx.sockopt;
    let option = Hazardous::of(opt);
    // The kernel takes the caller's own bytes, of whatever length. Otherwise it would refuse more than a page.
    store!(opt, optlen = 0);
    let Some(option) = option else {
        return Ok(());
    };
    let sk = load!(opt, __bindgen_anon_1.sk);
    if sk.is_null() {
        return Ok(());
    }
    if is_allowed(opt, option, sk) {
        return Ok(());
    }
    // SAFETY: takes a number.
    unsafe { bpf_set_retval(-EOPNOTSUPP) };
    Err(Refused)
}

#[inline(always)]
fn is_allowed(opt: *mut bpf_sockopt, option: Hazardous, sk: *mut bpf_sock) -> bool {
    if matches!(option, Hazardous::UpperLayer) {
        return upper_layer_is_allowed(sk);
    }
    let Some(state) = ctx::state(sk) else {
        return true;
    };
    if state.flags & IN_SOCKHASH == 0 {
        return true;
    }
    if matches!(option, Hazardous::ZeroCopy) && state.flags & SENDS == 0 {
        return true; // it sends as TCP does
    }
    ctx::mark(state);
    match option {
        // An end sends by copying, whatever is asked for: nobody would ever tell the sender that it is done.
        Hazardous::ZeroCopy => false,
        // Redirected bytes are in no queue that can be read under repair: they would be lost.
        Hazardous::Repair => !(turns_repair_on(opt) && has_unread(sk)),
        Hazardous::LowWater | Hazardous::UpperLayer => true,
    }
}

/// The kernel's TLS on a socket in a sockhash is unsafe (CVE-2026-93824), and would take redirected bytes for bytes that
/// it has checked. So an end is refused any protocol, and its connection goes on as before. Any other socket may ask, and
/// never becomes an end: it may be established after this and before the kernel looks at it.
#[inline(always)]
fn upper_layer_is_allowed(sk: *mut bpf_sock) -> bool {
    let Some(state) = ctx::state_or_new(sk) else {
        return false; // nothing would keep it from becoming an end
    };
    if state.flags & IN_SOCKHASH != 0 {
        count(Count::Hazards);
        return false;
    }
    state.hazard = 1;
    true
}

/// Whether a socket has bytes that it has not read, in doubt.
#[inline(always)]
fn has_unread(sk: *mut bpf_sock) -> bool {
    address_of(sk).and_then(|sock| peek(sock, CONFIG.sk_rmem())) != Some(0)
}

/// Whether the value is the one that turns `TCP_REPAIR` on.
#[inline(always)]
fn turns_repair_on(opt: *mut bpf_sockopt) -> bool {
    let value = load!(opt, __bindgen_anon_2.optval).cast::<i32>();
    let end = load!(opt, __bindgen_anon_3.optval_end).cast::<i32>();
    // SAFETY: the verifier knows that `end` bounds the value.
    value.wrapping_add(1) <= end && unsafe { core::ptr::read_volatile(value) } == TCP_REPAIR_ON
}

/// The options that are of interest.
#[derive(Clone, Copy)]
enum Hazardous {
    ZeroCopy,
    LowWater,
    UpperLayer,
    Repair,
}

impl Hazardous {
    #[inline(always)]
    fn of(opt: *mut bpf_sockopt) -> Option<Self> {
        match (load!(opt, level), load!(opt, optname)) {
            (SOL_SOCKET, SO_ZEROCOPY) => Some(Self::ZeroCopy),
            (SOL_SOCKET, SO_RCVLOWAT) => Some(Self::LowWater),
            (SOL_TCP, TCP_ULP) => Some(Self::UpperLayer),
            (SOL_TCP, TCP_REPAIR) => Some(Self::Repair),
            _ => None,
        }
    }
}
