//! `sockops`: which connections have both their ends on this node.
//!
//! An application's socket takes part only where its pod lets it, and where its calls do not block ([`manners`]), unless
//! bytes may be put into it anyway.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_RTT_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_TCP_CLOSE,
        BPF_TCP_ESTABLISHED, bpf_sock, bpf_sock_ops,
    },
    helpers::generated::{bpf_get_current_task, bpf_get_socket_cookie, bpf_sock_hash_update},
    programs::SockOpsContext,
};
use sidestep_ebpf_common::shortcut::{
    CANDIDATE, Count, EndKey, EndRecord, EndState, FROM_APPLICATION, IN_SOCKHASH, INTO_APPLICATION,
    IS_PROXY, Member, PodSwitch, REACH_NODE, RECEIVES, SENDS,
};
use sidestep_ebpf_hook::{
    AF_INET, AF_INET6, NOEXIST,
    context::{callbacks, netns_cookie, ops_sock, set_callbacks},
    ends::Ends,
    load,
    memory::{address_of, peek},
};

use crate::{
    ctx::{self, count},
    hazards,
    keepalive::keep_alive,
    manners,
    maps::{CONFIG, ENDS, MEMBERS, RECEIVERS, SENDERS, SWITCHES, Whose},
    message::needs,
    proxy,
    whose::peer_of,
};

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
    let cookie = netns_cookie(ops);
    // SAFETY: the element's memory outlives the program's run.
    let Some(member) = (unsafe { MEMBERS.get(cookie) }) else {
        return;
    };
    let Some(sk) = ops_sock(ops) else {
        return;
    };
    let ends = Ends::of(ops, family);
    match event {
        Event::Listening => proxy::listening(cookie, member, sk, &ends),
        Event::Connecting => connecting(cookie, member, sk, &ends),
        Event::Connected => connected(ctx, cookie, member, sk, &ends),
        Event::Accepted => accepted(ctx, cookie, member, sk, &ends),
        Event::InUse => in_use(ctx, cookie, member, sk),
        Event::Closed => closed(sk),
    }
}

/// The callbacks that are of interest.
enum Event {
    Listening,
    Connecting,
    Connected,
    Accepted,
    InUse,
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
            BPF_SOCK_OPS_RTT_CB => Some(Self::InUse),
            BPF_SOCK_OPS_STATE_CB => {
                // From, and to.
                match (
                    load!(ops, __bindgen_anon_1.args[0]),
                    load!(ops, __bindgen_anon_1.args[1]),
                ) {
                    (_, BPF_TCP_CLOSE) => Some(Self::Closed),
                    (BPF_TCP_ESTABLISHED, _) => Some(Self::InUse),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// Runs in the process that connects: the last moment at which it can be told.
#[inline(always)]
fn connecting(cookie: u64, member: &Member, sk: *mut bpf_sock, ends: &Ends) {
    let candidate = candidate(cookie, member, sk, ends);
    let state = if candidate.is_some() {
        ctx::state_or_new(sk)
    } else {
        ctx::state(sk)
    };
    if let Some(state) = state {
        let (flags, program) = candidate.unwrap_or((0, 0));
        state.reuse(flags);
        state.program = program;
    }
}

/// Flags, and an application's program, of a socket that may become an end of a shortcut.
#[inline(always)]
fn candidate(cookie: u64, member: &Member, sk: *mut bpf_sock, ends: &Ends) -> Option<(u32, u64)> {
    let same = peer_of(cookie, ends)? == cookie;
    let allowed = switch(member.place);
    let may = |flags| allowed.allows(cookie, flags);
    // SAFETY: takes nothing.
    let task = unsafe { bpf_get_current_task() };
    if proxy::is_process(member, peek(task, CONFIG.task_tgid())?) {
        let fit = if same {
            // Its own application, or itself.
            may(FROM_APPLICATION) || may(INTO_APPLICATION) || member.captures_on(ends.remote_port)
        } else {
            may(REACH_NODE)
        };
        return fit.then_some((IS_PROXY | CANDIDATE, 0));
    }
    if !same || !member.captures_on(ends.remote_port) || !may(FROM_APPLICATION) {
        return None;
    }
    let calm = || manners::is_nonblocking(address_of(sk)?);
    let fit = may(INTO_APPLICATION) || calm() == Some(true);
    if fit {
        Some((CANDIDATE, manners::program_of(task)?))
    } else {
        None
    }
}

/// Whether an application's socket may be an end.
#[inline(always)]
fn may_be_end(
    ctx: &SockOpsContext,
    cookie: u64,
    member: &Member,
    sk: *mut bpf_sock,
    whose: Whose,
) -> bool {
    let allowed = switch(member.place);
    allowed.allows(cookie, FROM_APPLICATION)
        && (allowed.allows(cookie, INTO_APPLICATION) || manners::never_block(ctx, sk, whose))
}

/// Where bytes may be put into the application nobody asks whether it blocks.
#[inline(always)]
fn in_use(ctx: &SockOpsContext, cookie: u64, member: &Member, sk: *mut bpf_sock) {
    let allowed = switch(member.place);
    if allowed.allows(cookie, FROM_APPLICATION) && !allowed.allows(cookie, INTO_APPLICATION) {
        manners::learn(ctx, cookie, sk);
    }
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
    let whose = Whose::program(cookie, state.program);
    if state.flags & IS_PROXY == 0 && !may_be_end(ctx, cookie, member, sk, whose) {
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
    let state = ctx::state(sk);
    let by_proxy = state
        .as_ref()
        .is_some_and(|state| state.flags & IS_PROXY != 0);
    let whose = Whose::port(cookie, ends.local_port);
    if !by_proxy && !may_be_end(ctx, cookie, member, sk, whose) {
        return;
    }
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
    let Some(state) = state.or_else(|| ctx::state_or_new(sk)) else {
        return;
    };
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
    // What was marked before, and what an earlier connection left in a sockhash, stays with TCP.
    if state.hazard != 0 || state.flags & IN_SOCKHASH != 0 {
        return;
    }
    let role = state.flags & IS_PROXY;
    let allowed = switch(member.place);
    let may = |needs: Option<u32>| needs.is_some_and(|flags| allowed.allows(own.cookie, flags));
    let hazards = hazards::present(sk);
    let sends = may(needs(own, role, to)) && !hazards.forbid_sending();
    let receives = may(needs(own, to, role)) && !hazards.forbid_receiving();
    if !sends && !receives {
        return;
    }
    let Some(sock) = address_of(sk) else {
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
    if !set_callbacks(ctx, callbacks(ctx) | BPF_SOCK_OPS_STATE_CB_FLAG) {
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
    if state.flags & IN_SOCKHASH == 0 {
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
