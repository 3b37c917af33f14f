//! `sockops`: which sockets are the proxy's, and which connections have both their ends on this node.
//!
//! A socket is the proxy's if it is accepted by a capture listener (it starts with a copy of the listener's state), or
//! connected by the process that opened those. Its user tells nothing: other programs of the sidecar have the same.
//!
//! An application's socket takes part only where its pod lets it, and where its calls do not block, unless bytes may be
//! put into it anyway: Linux ends a blocking read of a socket in a sockhash with EAGAIN whenever another thread shuts the socket down, or gets
//! room to write (`tcp_msg_wait_data` waits for one event, whatever it is).

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB,
        BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_TCP_CLOSE, bpf_sock, bpf_sock_ops,
    },
    helpers::generated::{
        bpf_get_current_task, bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_sock_hash_update,
    },
    programs::SockOpsContext,
};
use sidestep_ebpf_common::shortcut::{
    CANDIDATE, Count, EndKey, EndRecord, EndState, FROM_APPLICATION, INTO_APPLICATION, IS_PROXY,
    Member, PodSwitch, REACH_NODE, RECEIVES, SENDS,
};

use crate::{
    ctx::{self, AF_INET, AF_INET6, Ends, count, load, peek, peek_long},
    hazards,
    keepalive::keep_alive,
    maps::{CONFIG, ENDS, MEMBERS, PROXY_PROCESSES, RECEIVERS, SENDERS, SWITCHES},
    message::needs,
    whose::peer_of,
};

const NOEXIST: u64 = 1;

#[inline(always)]
pub fn run(ctx: &SockOpsContext) {
    let ops = ctx.ops;
    // A connection runs through here a dozen times; most are none of our business, and must cost next to nothing.
    let Some(event) = Event::of(ops) else {
        return;
    };
    let family = load!(ops, family);
    if family != AF_INET && family != AF_INET6 {
        return;
    }
    // SAFETY: takes this context, and cannot fail for a socket.
    let cookie = unsafe { bpf_get_netns_cookie(ops.cast()) };
    // SAFETY: the element's memory outlives the program's run.
    let Some(member) = (unsafe { MEMBERS.get(cookie) }) else {
        return;
    };
    let Some(sk) = ctx::ops_sock(ops) else {
        return;
    };
    let ends = Ends::of(ops, family);
    match event {
        Event::Listening => listening(member, sk, &ends),
        Event::Connecting => connecting(cookie, member, sk, &ends),
        Event::Connected => connected(ctx, cookie, member, sk, &ends),
        Event::Accepted => accepted(ctx, cookie, member, sk, &ends),
        Event::Closed => closed(sk),
    }
}

/// The callbacks that are of interest.
enum Event {
    Listening,
    Connecting,
    Connected,
    Accepted,
    Closed,
}

impl Event {
    #[inline(always)]
    fn of(ops: *mut bpf_sock_ops) -> Option<Self> {
        match load!(ops, op) {
            BPF_SOCK_OPS_TCP_LISTEN_CB => Some(Self::Listening),
            BPF_SOCK_OPS_TCP_CONNECT_CB => Some(Self::Connecting),
            BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => Some(Self::Connected),
            BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => Some(Self::Accepted),
            BPF_SOCK_OPS_STATE_CB if load!(ops, __bindgen_anon_1.args[1]) == BPF_TCP_CLOSE => {
                Some(Self::Closed)
            }
            _ => None,
        }
    }
}

/// Who opens a capture listener is the proxy, from then on until another process does.
#[inline(always)]
fn listening(member: &Member, sk: *mut bpf_sock, ends: &Ends) {
    if !member.captures_on(ends.local_port) {
        // Whether its calls block is asked when it accepts: many a program changes that after it has begun to listen.
        if let Some(state) = ctx::state_or_new(sk) {
            *state = EndState::new(0);
            state.listener = ctx::address_of(sk).unwrap_or(0);
        }
        return;
    }
    let Some(process) = proxy_process(member) else {
        return;
    };
    if let Some(place) = PROXY_PROCESSES.get_ptr_mut(member.place) {
        // SAFETY: a live element of one word.
        unsafe { *place = process };
    }
    if let Some(state) = ctx::state_or_new(sk) {
        *state = EndState::new(IS_PROXY);
    }
}

/// The current process, if it may be the proxy.
#[inline(always)]
fn proxy_process(member: &Member) -> Option<u32> {
    // SAFETY: takes nothing.
    let task = unsafe { bpf_get_current_task() };
    let cred = peek_long(task, CONFIG.task_cred())?;
    let uid = peek(cred, CONFIG.cred_fsuid())?;
    let gid = peek(cred, CONFIG.cred_fsgid())?;
    if member.may_be_proxy(uid, gid) {
        peek(task, CONFIG.task_tgid())
    } else {
        None
    }
}

/// Runs in the process that connects: the last moment at which it can be told.
#[inline(always)]
fn connecting(cookie: u64, member: &Member, sk: *mut bpf_sock, ends: &Ends) {
    let role = candidate(cookie, member, sk, ends);
    let state = if role.is_some() {
        ctx::state_or_new(sk)
    } else {
        ctx::state(sk)
    };
    if let Some(state) = state {
        // The socket may have been connected before.
        *state = EndState::new(role.map_or(0, |role| role | CANDIDATE));
    }
}

/// The role of a socket that may become an end of a shortcut.
#[inline(always)]
fn candidate(cookie: u64, member: &Member, sk: *mut bpf_sock, ends: &Ends) -> Option<u32> {
    let same = peer_of(cookie, ends)? == cookie;
    if is_connected_by_proxy(member) {
        (same || switch(member.place).allows(cookie, REACH_NODE)).then_some(IS_PROXY)
    } else {
        let fit = same && member.captures_on(ends.remote_port);
        (fit && may_be_end(cookie, member, ctx::address_of(sk).unwrap_or(0))).then_some(0)
    }
}

/// Whether an application's socket may be an end, judged by the one at this address: itself, or who accepted it.
#[inline(always)]
fn may_be_end(cookie: u64, member: &Member, sock: u64) -> bool {
    let allowed = switch(member.place);
    allowed.allows(cookie, FROM_APPLICATION)
        && (is_nonblocking(sock) || allowed.allows(cookie, INTO_APPLICATION))
}

/// Whether the file that the socket at this address was opened as has `O_NONBLOCK`. One that is gone has none.
#[inline(always)]
fn is_nonblocking(sock: u64) -> bool {
    const O_NONBLOCK: u32 = 0o4000;
    let flags = || {
        let socket = peek_long(sock, CONFIG.sk_socket())?;
        let file = peek_long(socket, CONFIG.socket_file())?;
        peek(file, CONFIG.file_flags())
    };
    flags().is_some_and(|flags| flags & O_NONBLOCK != 0)
}

#[inline(always)]
fn is_connected_by_proxy(member: &Member) -> bool {
    let Some(process) = PROXY_PROCESSES.get(member.place) else {
        return false;
    };
    // SAFETY: takes nothing.
    let task = unsafe { bpf_get_current_task() };
    *process != 0 && peek(task, CONFIG.task_tgid()) == Some(*process)
}

#[inline(always)]
fn switch(place: u32) -> PodSwitch {
    SWITCHES.get(place).copied().unwrap_or(PodSwitch::new(0, 0))
}

/// The connecting end is established. What the other end is can only be guessed; it says so itself a moment later.
#[inline(always)]
fn connected(ctx: &SockOpsContext, cookie: u64, member: &Member, sk: *mut bpf_sock, ends: &Ends) {
    let Some(state) = ctx::state(sk) else {
        return;
    };
    if state.flags & CANDIDATE == 0 {
        return;
    }
    let Some(peer) = peer_of(cookie, ends) else {
        return;
    };
    let to = if peer != cookie || member.captures_on(ends.remote_port) {
        IS_PROXY
    } else {
        0
    };
    let own = EndKey::new(
        (cookie, ends.local, ends.local_port),
        (peer, ends.remote, ends.remote_port),
    );
    join(ctx, member, sk, state, &own, to, None);
}

/// The accepting end is established. It takes part if the other does already.
#[inline(always)]
fn accepted(ctx: &SockOpsContext, cookie: u64, member: &Member, sk: *mut bpf_sock, ends: &Ends) {
    let Some(peer) = peer_of(cookie, ends) else {
        return;
    };
    let own = EndKey::new(
        (cookie, ends.local, ends.local_port),
        (peer, ends.remote, ends.remote_port),
    );
    // SAFETY: copied at once.
    let Some(client) = (unsafe { ENDS.get(own.turned()) }).copied() else {
        return;
    };
    let Some(state) = ctx::state_or_new(sk) else {
        return;
    };
    if state.flags & IS_PROXY == 0 && !may_be_end(cookie, member, state.listener) {
        return;
    }
    join(ctx, member, sk, state, &own, client.role, Some(client));
}

/// Makes a socket an end of a shortcut: publishes it, and puts it into the sockhashes in which it has a use.
#[inline(always)]
fn join(
    ctx: &SockOpsContext,
    member: &Member,
    sk: *mut bpf_sock,
    state: &mut EndState,
    own: &EndKey,
    to: u32,
    peer: Option<EndRecord>,
) {
    let role = state.flags & IS_PROXY;
    let allowed = switch(member.place);
    let may = |needs: Option<u32>| needs.is_some_and(|flags| allowed.allows(own.cookie, flags));
    let hazards = hazards::present(sk);
    let sends = may(needs(own, role, to)) && !hazards.forbid_sending();
    let receives = may(needs(own, to, role)) && !hazards.forbid_receiving();
    if !sends && !receives {
        return;
    }
    let Some(sock) = ctx::address_of(sk) else {
        return;
    };
    // SAFETY: takes this context.
    let id = unsafe { bpf_get_socket_cookie(ctx.ops.cast()) };
    let record = EndRecord {
        sock,
        id,
        state: (&raw const *state) as u64,
        role,
        place: member.place,
    };
    state.place = member.place;
    state.peer_key = own.turned();
    if let Some(peer) = peer {
        let Some(needs) = needs(own, role, peer.role) else {
            return;
        };
        state.needs = needs;
        state.peer_place = peer.place;
        state.peer = peer;
    }
    let flags = load!(ctx.ops, bpf_sock_ops_cb_flags) | BPF_SOCK_OPS_STATE_CB_FLAG;
    // Other programs' flags stay: the call replaces all of them.
    if ctx.set_cb_flags(flags.cast_signed()).is_err() {
        return;
    }
    // The socket is known before it can be found: whoever finds it may send to it.
    let mut joined = 0;
    if receives && insert((&raw const RECEIVERS).cast_mut().cast(), ctx.ops, id) {
        joined |= RECEIVES;
    }
    if sends && insert((&raw const SENDERS).cast_mut().cast(), ctx.ops, id) {
        joined |= SENDS;
    }
    if joined == 0 {
        count(Count::Refused);
        return;
    }
    state.flags |= joined;
    // An entry of the same ends is of a socket that is no more: the kernel lets a namespace have one at a time.
    if ENDS.insert(own, record, 0).is_err() {
        count(Count::Refused);
        return;
    }
    count(Count::Ends);
    if own.cookie != own.peer_cookie {
        keep_alive(ctx.ops);
    }
}

#[inline(always)]
fn insert(map: *mut core::ffi::c_void, ops: *mut bpf_sock_ops, mut id: u64) -> bool {
    // SAFETY: a valid context, map and key.
    unsafe { bpf_sock_hash_update(ops, map, (&raw mut id).cast(), NOEXIST) == 0 }
}

/// Takes back what this socket published, and nothing that another did since.
#[inline(always)]
fn closed(sk: *mut bpf_sock) {
    let Some(state) = ctx::state(sk) else {
        return;
    };
    if state.flags & (SENDS | RECEIVES) == 0 {
        return;
    }
    let own = state.peer_key.turned();
    let address = (&raw const *state) as u64;
    // SAFETY: copied at once.
    let record = unsafe { ENDS.get(own) }.copied();
    if record.is_some_and(|record| record.state == address) {
        let _: Result<(), i32> = ENDS.remove(own);
    }
}
