//! Whether an application's calls block: what was seen of the connections before.
//!
//! Linux ends a blocking read of a socket in a sockhash with EAGAIN at a signal, when another thread shuts it down, or when
//! there is room to write (`tcp_msg_wait_data` waits for one event, whatever it is). When a connection is established, and
//! a socket can still be put into a sockhash, an accepted one has no file yet, and one that connects without blocking may
//! block afterwards. So the first that a port accepts, or a program connects, stays with TCP; it is looked at once something
//! that it sent is acknowledged, and when it closes. One that blocks decides for all that come after.

use aya_ebpf::{
    bindings::{BPF_SOCK_OPS_RTT_CB_FLAG, BPF_SOCK_OPS_STATE_CB_FLAG, bpf_sock},
    programs::SockOpsContext,
};
use sidestep_ebpf_common::shortcut::{
    Count, FROM_APPLICATION, HAS_REDIRECTED, INTO_APPLICATION, IS_PROXY, Member, WATCHED,
};
use sidestep_ebpf_hook::{
    EXIST, NOEXIST,
    context::{callbacks, netns_cookie, set_callbacks},
    load,
    memory::Known,
};

use crate::{
    ctx,
    maps::{CONFIG, MANNERS, Whose},
    share,
};

/// None of them was seen to block, and at least one was seen not to.
const CALM: u32 = 1;
/// One was.
const BLOCKING: u32 = 2;

/// Whether its sockets may be in a sockhash. Where that is not known yet this one will tell.
#[inline(always)]
pub fn never_block(
    ctx: &SockOpsContext,
    member: &Member,
    sk: *mut bpf_sock,
    whose: Whose,
) -> Result<(), Count> {
    // SAFETY: copied at once.
    match unsafe { MANNERS.get(whose) }.copied() {
        Some(CALM) => Ok(()),
        Some(_) => Err(Count::Blocking),
        None => {
            watch(ctx, member, sk);
            Err(Count::Learning)
        }
    }
}

/// Another program may listen there now.
#[inline(always)]
pub fn forget(member: &Member, whose: Whose) {
    if MANNERS.remove(whose).is_ok() {
        share::count_manners(member.place, -1);
    }
}

/// Looks at an application's socket that is in use, or about to be closed. Where bytes may be put into the application
/// nobody asks whether it blocks.
#[inline(always)]
pub fn learn(ctx: &SockOpsContext, sk: *mut bpf_sock) {
    let Some(state) = ctx::state(sk).filter(|state| state.flags & IS_PROXY == 0) else {
        return;
    };
    let cookie = netns_cookie(ctx.ops);
    let allowed = ctx::switch(state.place);
    if !allowed.allows(cookie, FROM_APPLICATION) || allowed.allows(cookie, INTO_APPLICATION) {
        return;
    }
    // Before it has sent something it may not be as its program wants it.
    if load!(ctx.ops, data_segs_out) == 0 && state.flags & HAS_REDIRECTED == 0 {
        return;
    }
    let Some(calm) = Known::tcp(sk).and_then(is_nonblocking) else {
        return;
    };
    let whose = if state.program == 0 {
        Whose::port(cookie, load!(ctx.ops, local_port) as u16)
    } else {
        Whose::program(cookie, state.program)
    };
    // SAFETY: copied at once.
    let known = unsafe { MANNERS.get(whose) }.copied();
    match (known, calm) {
        // Where there is no room nothing is known.
        (None, _) if share::has_room_for_manners(state.place) => {
            let manner = if calm { CALM } else { BLOCKING };
            if MANNERS.insert(whose, manner, NOEXIST).is_ok() {
                share::count_manners(state.place, 1);
            }
        }
        (Some(CALM), false) => {
            let _is_known: Result<(), i32> = MANNERS.insert(whose, BLOCKING, EXIST);
        }
        _ => {}
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
