//! `sk_msg`: each message of a socket that sends, decided anew.
//!
//! It is redirected only if nothing sent by TCP is still unread (`peer.copied_seq == own.write_seq`), so that order is
//! kept, and if the receiver keeps up. Else TCP carries it, and its own flow control bounds the sender. No history is
//! needed, except for one thing: where TCP carried the message before, the receiver's lock must be free. Somebody who
//! is still inside TCP's own reading would take the next bytes that TCP brings before the redirected ones.
//!
//! The sender waits for that lock, whatever its file says, and a receiver that reads into memory which is not there yet
//! keeps it for as long as that takes. So before every message the lock must be free of a pod of another Kubernetes
//! namespace, and of an application.

use aya_ebpf::{
    bindings::{BPF_TCP_CLOSE_WAIT, BPF_TCP_ESTABLISHED, bpf_sock},
    helpers::generated::bpf_msg_redirect_hash,
    programs::SkMsgContext,
};
use sidestep_ebpf_common::shortcut::{
    Count, EndKey, EndState, HAS_REDIRECTED, INTO_APPLICATION, IS_PROXY, ONE_NAMESPACE,
    REACH_NAMESPACE, REACH_NODE, REACH_POD, READ_PLAINLY,
};
use sidestep_ebpf_hook::{
    load,
    memory::{Known, in_order, peek, peek_long, peek_pair},
};

use crate::{
    ctx::{self, count, count_redirected},
    maps::{CONFIG, ENDS, RECEIVERS, SWITCHES},
};

const INGRESS: u64 = 1;
/// Messages after which the other end is not looked for any more: it is there within the first, or never.
const PATIENCE: u32 = 64;

/// In the other end's state both stand in one word: the hazard in its lower half, the reader above.
const HAZARD_AND_READER: u32 = core::mem::offset_of!(EndState, hazard) as u32;
const _: () = assert!(
    HAZARD_AND_READER.is_multiple_of(8)
        && core::mem::offset_of!(EndState, reader) == HAZARD_AND_READER as usize + 4
);

/// Whatever is decided, the message goes on; a redirection is noted in it.
#[inline(always)]
pub fn run(ctx: &SkMsgContext) {
    let sk = load!(ctx.msg, __bindgen_anon_3.sk);
    if sk.is_null() {
        return;
    }
    let Some(state) = ctx::state(sk) else {
        return;
    };
    match decide(sk, state, load!(ctx.msg, size)) {
        Ok(()) => redirect(ctx, state),
        Err(why) => count(why),
    }
}

#[inline(always)]
fn decide(sk: *mut bpf_sock, state: &mut EndState, size: u32) -> Result<(), Count> {
    if state.hazard != 0 {
        return Err(Count::Marked);
    }
    // Who has shut down, or was reset, gets his EPIPE from TCP: `tcp_bpf_sendmsg` does not look.
    if !matches!(load!(sk, state), BPF_TCP_ESTABLISHED | BPF_TCP_CLOSE_WAIT) {
        return Err(Count::Alone);
    }
    if state.peer.sock == 0 {
        find_peer(state)?;
    }
    if !allowed(state) {
        return Err(Count::Off);
    }
    #[cfg(feature = "test-switches")]
    if CONFIG.naive() != 0 {
        return Ok(());
    }
    let own = Known::tcp(sk).ok_or(Count::Alone)?;
    // What was sent by TCP so far, as a sequence number. The lock is held, so nothing is added meanwhile.
    let own_written = own.word(CONFIG.tp_write_seq());
    let peer = state.peer.sock;
    let copied = peek(peer, CONFIG.tp_copied_seq()).ok_or(Count::Alone)?;
    if copied != own_written {
        return Err(Count::Unread);
    }
    let unread = peek(peer, CONFIG.sk_rmem()).ok_or(Count::Alone)?;
    keeps_up(own, peer, state, unread, size)?;
    let stayed = state.flags & HAS_REDIRECTED != 0 && state.redirected_at == own_written;
    if !stayed || state.needs & (REACH_NODE | INTO_APPLICATION) != 0 {
        // Who has read everything took the lock before.
        in_order();
        if peek(peer, CONFIG.sk_owned()) != Some(0) {
            return Err(Count::Busy);
        }
    }
    let of_peer = peek_long(state.peer.state, HAZARD_AND_READER).ok_or(Count::Marked)?;
    if of_peer as u32 != 0 {
        return Err(Count::Marked);
    }
    let into_application = state.needs & INTO_APPLICATION != 0;
    #[cfg(feature = "test-switches")]
    let into_application = into_application && CONFIG.trusting() == 0;
    if into_application && (of_peer >> 32) as u32 != READ_PLAINLY {
        return Err(Count::Unseen);
    }
    state.redirected_at = own_written;
    state.flags |= HAS_REDIRECTED;
    Ok(())
}

/// Whether the receiver may have this message too.
#[inline(always)]
fn keeps_up(
    own: Known,
    peer: u64,
    state: &mut EndState,
    unread: u32,
    size: u32,
) -> Result<(), Count> {
    /// Of each message, beside its bytes: `struct sk_msg`, as the kernel allocates it.
    const MESSAGE: u64 = 1 << 10;
    let bytes = u64::from(unread) + u64::from(size);
    let messages = u64::from(state.queue.unread(unread)) + 1;
    if bytes + messages * MESSAGE > u64::from(CONFIG.limit()) || !has_room(peer, bytes) {
        return Err(Count::Full);
    }
    if memory_is_scarce(own, unread) {
        return Err(Count::Scarce);
    }
    Ok(())
}

/// A socket gets this much (less than `tcp_rmem`'s first value) as long as all together have less than `tcp_mem`'s third.
const ALWAYS_GRANTED: u32 = 2 << 10;

/// Whether all TCP sockets together have so much that the kernel might refuse to account more to one
/// (`__sk_mem_raise_allocated`): the sender would get ENOMEM, which no TCP socket ever gets. From `tcp_mem`'s second value on
/// nothing is redirected at all, so that the third is not reached meanwhile. The sender's protocol is the receiver's, too.
#[inline(always)]
fn memory_is_scarce(own: Known, unread: u32) -> bool {
    let pages = || {
        let proto = own.follow(CONFIG.sk_prot())?;
        let allocated = proto.follow(CONFIG.proto_allocated())?.long(0);
        let (low, pressure) = peek_pair(proto.long(CONFIG.proto_limits()))?;
        Some((allocated, low, pressure))
    };
    pages().is_none_or(|(allocated, low, pressure)| {
        // Each CPU keeps some pages back, so that the sum is below zero now and then: the kernel takes that for nothing.
        let allocated = allocated.cast_signed().max(0).cast_unsigned();
        let many = allocated.wrapping_mul(100) > low.wrapping_mul(u64::from(CONFIG.memory_share()));
        allocated >= pressure || many && unread > ALWAYS_GRANTED
    })
}

/// Whether the receiver can have so many bytes and still take what TCP brings while it is being read. Above the limit in
/// `tcp_add_backlog` (twice the receive buffer, half the send buffer, 64 KiB) the kernel drops that, and a reset is never
/// sent again. The 64 KiB stay free here.
#[inline(always)]
fn has_room(peer: u64, bytes: u64) -> bool {
    const ALWAYS: u64 = 32 << 10;
    if bytes <= ALWAYS {
        return true;
    }
    let buffer = |offset| peek(peer, offset).map_or(0, u64::from);
    bytes <= 2 * buffer(CONFIG.sk_rcvbuf()) + buffer(CONFIG.sk_sndbuf()) / 2
}

/// Both pods, by what their switches say now.
#[inline(always)]
fn allowed(state: &EndState) -> bool {
    let own = state.peer_key.peer_cookie;
    let peer = state.peer_key.cookie;
    let allows = |place, cookie| {
        SWITCHES
            .get(place)
            .is_some_and(|switch| switch.allows(cookie, state.needs))
    };
    allows(state.place, own) && (own == peer || allows(state.peer_place, peer))
}

/// The other end is published when it is established, which may be a moment after the first message here.
#[inline(always)]
fn find_peer(state: &mut EndState) -> Result<(), Count> {
    let Some(peer) = ENDS.get_ptr(state.peer_key) else {
        state.misses += 1;
        if state.misses > PATIENCE {
            ctx::mark(state);
        }
        return Err(Count::Alone);
    };
    // SAFETY: the element's memory outlives the program's run.
    let peer = unsafe { *peer };
    let Some(needs) = needs(&state.peer_key, state.flags, state.flags, peer.role) else {
        ctx::mark(state);
        return Err(Count::Alone);
    };
    state.needs = needs;
    state.peer_place = peer.place;
    state.peer = peer;
    Ok(())
}

/// What both pods must allow for messages between their sidecars, by [`ONE_NAMESPACE`].
#[inline(always)]
pub const fn between(kinship: u32) -> u32 {
    if kinship & ONE_NAMESPACE != 0 {
        REACH_NAMESPACE
    } else {
        REACH_NODE
    }
}

/// What must be allowed for messages from an end of this role to one of that; `None` where they never may be.
#[inline(always)]
pub fn needs(key: &EndKey, kinship: u32, from: u32, to: u32) -> Option<u32> {
    let (from_proxy, to_proxy) = (from & IS_PROXY != 0, to & IS_PROXY != 0);
    if key.cookie != key.peer_cookie {
        return (from_proxy && to_proxy).then_some(between(kinship));
    }
    match (from_proxy, to_proxy) {
        (_, true) => Some(REACH_POD),
        (true, false) => Some(REACH_POD | INTO_APPLICATION),
        (false, false) => None,
    }
}

#[inline(always)]
fn redirect(ctx: &SkMsgContext, state: &mut EndState) {
    let map = (&raw const RECEIVERS).cast_mut().cast();
    let key = (&raw mut state.peer.id).cast();
    // SAFETY: a valid context, map and key.
    let done = unsafe { bpf_msg_redirect_hash(ctx.msg, map, key, INGRESS) };
    // Where the other socket is closed already there is none any more: TCP will say so.
    if done == 1 {
        let size = load!(ctx.msg, size);
        state.queue.push(size);
        count_redirected(size);
    } else {
        count(Count::Alone);
    }
}
