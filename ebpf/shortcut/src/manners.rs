//! What was seen of an application's connections before, and decides for those that come after: whether its calls block, and
//! whether its connections last.
//!
//! Linux ends a blocking read of a socket in a sockhash with EAGAIN at a signal, when another thread shuts it down, or when
//! there is room to write (`tcp_msg_wait_data` waits for one event, whatever it is). When a connection is established, and
//! a socket can still be put into a sockhash, an accepted one has no file yet, and one that connects without blocking may
//! block afterwards. So the first that a port accepts, or a program connects, stays with TCP; it is looked at once something
//! that it sent is acknowledged, and when it closes. One that blocks decides for all that come after.
//!
//! Making a socket an end takes as many instructions as some eight messages save (`make bench-exact`). Where as many connections
//! in a row as [`IN_A_ROW`] were shorter, only one in [`TRIED`] takes part, and tells when that has changed.

use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_RTT_CB_FLAG, BPF_SOCK_OPS_STATE_CB_FLAG, bpf_sock},
    programs::SockOpsContext,
};
use sidestep_ebpf_common::shortcut::{
    Count, EndState, FROM_APPLICATION, HAS_REDIRECTED, INTO_APPLICATION, IS_PROXY, Member, WATCHED,
};
use sidestep_ebpf_hook::{
    NOEXIST,
    context::{callbacks, netns_cookie, set_callbacks},
    load,
    memory::Known,
};

use crate::{
    ctx,
    maps::{CONFIG, MANNERS, SWITCHES, Whose},
};

/// The part of the map's value that says whether it blocks; 0 is not known.
const MANNER: u32 = 0xff;
/// None of them was seen to block, and at least one was seen not to.
const CALM: u32 = 1;
/// One was.
const BLOCKING: u32 = 2;

/// The part that counts short connections in a row, and one of them.
const SHORT: u32 = 0xff00;
const ONE_SHORT: u32 = 1 << 8;
/// So many in a row say that the next will be short, too.
const IN_A_ROW: u32 = 16;
/// A connection is short on which fewer messages were redirected.
const FEW: u32 = 8;

/// The part above counts those that were left with TCP since the last that was tried.
const ONE_LEFT: u32 = 1 << 16;
/// One in so many is.
const TRIED: u32 = 16;

/// Whether its sockets may be in a sockhash, and are worth it. Where it is not known yet whether they block, this one will tell;
/// where bytes may be put into the application, nobody asks.
#[inline(always)]
pub fn take_part(
    ctx: &SockOpsContext,
    member: &Member,
    sk: *mut bpf_sock,
    whose: Whose,
    may_block: bool,
) -> Result<(), Count> {
    let place = MANNERS.get_ptr_mut(whose);
    // SAFETY: a live element of one word. Several CPUs may write it at once, and one of them is lost.
    let known = place.map_or(0, |place| unsafe { place.read_volatile() });
    if !may_block {
        match known & MANNER {
            CALM => {}
            BLOCKING => return Err(Count::Blocking),
            _ => {
                watch(ctx, member, sk);
                return Err(Count::Learning);
            }
        }
    }
    let Some(place) = place else {
        return Ok(());
    };
    if known & SHORT < IN_A_ROW * ONE_SHORT {
        return Ok(());
    }
    let is_tried = known / ONE_LEFT >= TRIED - 1;
    let next = if is_tried {
        known % ONE_LEFT
    } else {
        known + ONE_LEFT
    };
    // SAFETY: as above.
    unsafe { place.write_volatile(next) };
    if is_tried { Ok(()) } else { Err(Count::Short) }
}

/// Notes how many messages were redirected on an application's connection that has ended.
#[inline(always)]
pub fn ended(state: &EndState) {
    let own = state.peer_key.turned();
    let whose = Whose::of(own.cookie, state, own.local_port);
    let is_short = state.queue.messages < FEW;
    let Some(place) = MANNERS.get_ptr_mut(whose) else {
        if is_short {
            // Where there is no room nothing is known.
            let _: Result<(), i32> = MANNERS.insert(whose, ONE_SHORT, NOEXIST);
        }
        return;
    };
    // SAFETY: as in `take_part`.
    let known = unsafe { place.read_volatile() };
    let next = match (is_short, known & SHORT < IN_A_ROW * ONE_SHORT) {
        (false, _) => known & MANNER,
        (true, true) => known + ONE_SHORT,
        (true, false) => known,
    };
    if next != known {
        // SAFETY: as in `take_part`.
        unsafe { place.write_volatile(next) };
    }
}

/// Another program may listen there now.
#[inline(always)]
pub fn forget(whose: Whose) {
    let _: Result<(), i32> = MANNERS.remove(whose);
}

/// Looks at an application's socket that is in use, or about to be closed. Where bytes may be put into the application
/// nobody asks whether it blocks.
#[inline(always)]
pub fn learn(ctx: &SockOpsContext, sk: *mut bpf_sock) {
    let Some(state) = ctx::state(sk).filter(|state| state.flags & IS_PROXY == 0) else {
        return;
    };
    let cookie = netns_cookie(ctx.ops);
    let allows = |flags| {
        let switch = SWITCHES.get(state.place);
        switch.is_some_and(|switch| switch.allows(cookie, flags))
    };
    if !allows(FROM_APPLICATION) || allows(INTO_APPLICATION) {
        return;
    }
    // Before it has sent something it may not be as its program wants it.
    if load!(ctx.ops, data_segs_out) == 0 && state.flags & HAS_REDIRECTED == 0 {
        return;
    }
    let Some(calm) = Known::tcp(sk).and_then(is_nonblocking) else {
        return;
    };
    let whose = Whose::of(cookie, state, load!(ctx.ops, local_port) as u16);
    let manner = if calm { CALM } else { BLOCKING };
    if let Some(place) = MANNERS.get_ptr_mut(whose) {
        // SAFETY: as in `take_part`.
        let known = unsafe { place.read_volatile() };
        if known & MANNER < manner {
            // SAFETY: as in `take_part`.
            unsafe { place.write_volatile(known & !MANNER | manner) };
        }
    } else {
        // Where there is no room nothing is known.
        let _: Result<(), i32> = MANNERS.insert(whose, manner, NOEXIST);
    }
    if state.flags & WATCHED != 0 {
        state.flags &= !WATCHED;
        set_callbacks(ctx, callbacks(ctx) & !BPF_SOCK_OPS_RTT_CB_FLAG);
    }
}

/// Whether the file that a socket was opened as has `O_NONBLOCK`; `None` where it has none, not yet or no more.
#[inline(always)]
pub fn is_nonblocking(tcp: Known) -> Option<bool> {
    const O_NONBLOCK: u32 = 0o4000;
    let file = tcp
        .follow(CONFIG.sk_socket())?
        .follow(CONFIG.socket_file())?;
    Some(file.word(CONFIG.file_flags()) & O_NONBLOCK != 0)
}

/// The inode of the program that a task runs.
#[inline(always)]
pub fn program_of(task: Known) -> Option<u64> {
    let file = task
        .follow(CONFIG.task_mm())?
        .follow(CONFIG.mm_exe_file())?;
    Some(
        file.follow(CONFIG.file_inode())?
            .long(CONFIG.inode_number()),
    )
}

/// Asks to be told of the socket's round trips, and of its end. A flag that another program has set stays as it is.
#[inline(always)]
fn watch(ctx: &SockOpsContext, member: &Member, sk: *mut bpf_sock) {
    let Some(state) = ctx::state_or_new(sk) else {
        return;
    };
    state.place = member.place;
    let mut flags = callbacks(ctx) | BPF_SOCK_OPS_STATE_CB_FLAG;
    if flags & BPF_SOCK_OPS_RTT_CB_FLAG == 0 {
        state.flags |= WATCHED;
        flags |= BPF_SOCK_OPS_RTT_CB_FLAG;
    }
    set_callbacks(ctx, flags);
}
