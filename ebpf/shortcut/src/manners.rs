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
use sidestep_ebpf_common::shortcut::{Count, HAS_REDIRECTED, IS_PROXY, WATCHED};
use sidestep_ebpf_hook::{
    NOEXIST,
    context::{callbacks, set_callbacks},
    load,
    memory::{address_of, peek, peek_long},
};

use crate::{
    ctx,
    maps::{CONFIG, MANNERS, Whose},
};

/// None of them was seen to block, and at least one was seen not to.
const CALM: u32 = 1;
/// One was.
const BLOCKING: u32 = 2;

/// Whether its sockets may be in a sockhash. Where that is not known yet this one will tell.
#[inline(always)]
pub fn never_block(ctx: &SockOpsContext, sk: *mut bpf_sock, whose: Whose) -> Result<(), Count> {
    // SAFETY: copied at once.
    match unsafe { MANNERS.get(whose) }.copied() {
        Some(CALM) => Ok(()),
        Some(_) => Err(Count::Blocking),
        None => {
            watch(ctx, sk);
            Err(Count::Learning)
        }
    }
}

/// Another program may listen there now.
#[inline(always)]
pub fn forget(whose: Whose) {
    let _: Result<(), i32> = MANNERS.remove(whose);
}

/// Looks at an application's socket that is in use, or about to be closed.
#[inline(always)]
pub fn learn(ctx: &SockOpsContext, cookie: u64, sk: *mut bpf_sock) {
    let state = ctx::state(sk);
    let (flags, program) = state
        .as_ref()
        .map_or((0, 0), |state| (state.flags, state.program));
    if flags & IS_PROXY != 0 {
        return;
    }
    // Before it has sent something it may not be as its program wants it.
    let sent = load!(ctx.ops, data_segs_out) != 0 || flags & HAS_REDIRECTED != 0;
    let Some(calm) = is_nonblocking(address_of(sk).unwrap_or(0)).filter(|_| sent) else {
        return;
    };
    let whose = if program == 0 {
        Whose::port(cookie, load!(ctx.ops, local_port) as u16)
    } else {
        Whose::program(cookie, program)
    };
    // Where there is no room nothing is known.
    let _: Result<(), i32> = if calm {
        MANNERS.insert(whose, CALM, NOEXIST)
    } else {
        MANNERS.insert(whose, BLOCKING, 0)
    };
    if let Some(state) = state
        && state.flags & WATCHED != 0
    {
        state.flags &= !WATCHED;
        set_callbacks(ctx, callbacks(ctx) & !BPF_SOCK_OPS_RTT_CB_FLAG);
    }
}

/// Whether the file that the socket at this address was opened as has `O_NONBLOCK`; `None` where it has none, not yet or
/// no more.
#[inline(always)]
pub fn is_nonblocking(sock: u64) -> Option<bool> {
    const O_NONBLOCK: u32 = 0o4000;
    let socket = peek_long(sock, CONFIG.sk_socket())?;
    let file = peek_long(socket, CONFIG.socket_file())?;
    let flags = peek(file, CONFIG.file_flags())?;
    Some(flags & O_NONBLOCK != 0)
}

/// The inode of the program that a task runs.
#[inline(always)]
pub fn program_of(task: u64) -> Option<u64> {
    let memory = peek_long(task, CONFIG.task_mm())?;
    let file = peek_long(memory, CONFIG.mm_exe_file())?;
    let inode = peek_long(file, CONFIG.file_inode())?;
    peek_long(inode, CONFIG.inode_number())
}

/// Asks to be told of the socket's round trips, and of its end. A flag that another program has set stays as it is.
#[inline(always)]
fn watch(ctx: &SockOpsContext, sk: *mut bpf_sock) {
    let mut flags = callbacks(ctx) | BPF_SOCK_OPS_STATE_CB_FLAG;
    if flags & BPF_SOCK_OPS_RTT_CB_FLAG == 0
        && let Some(state) = ctx::state_or_new(sk)
    {
        state.flags |= WATCHED;
        flags |= BPF_SOCK_OPS_RTT_CB_FLAG;
    }
    set_callbacks(ctx, flags);
}
