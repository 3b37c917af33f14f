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
    helpers::generated::{bpf_get_socket_cookie, bpf_sock_hash_update},
    programs::SockOpsContext,
};
use sidestep_ebpf_common::shortcut::{
    CANDIDATE, Count, EndKey, EndRecord, EndState, FROM_APPLICATION, IN_SOCKHASH, INTO_APPLICATION,
    IS_PROXY, Member, ONE_NAMESPACE, RECEIVES, SENDS,
};
use sidestep_ebpf_hook::{
    AF_INET, AF_INET6, NOEXIST,
    context::{callbacks, netns_cookie, ops_sock, set_callbacks},
    ends::Ends,
    load,
    memory::{Known, address_of},
};

use crate::{
    ctx::{self, count, switch},
    hazards,
    keepalive::keep_alive,
    manners,
    maps::{CONFIG, ENDS, MEMBERS, RECEIVERS, SENDERS, Whose},
    message::{between, needs},
    proxy, share,
    whose::{kinship, peer_of},
};

#[inline(always)]
pub fn run(ctx: &SockOpsContext) {
    let ops = ctx.ops;
    // A connection runs through here a dozen times; most are none of our business, and must cost next to nothing.
    let Some(event) = Event::of(ops) else {
        return;
    };
    let Some(sk) = ops_sock(ops) else {
        return count(Count::Unreadable);
    };
    // Whose it is is kept with the socket.
    let event = match event {
        Event::InUse => return manners::learn(ctx, sk),
        Event::Closed => return closed(sk),
        Event::Begins(event) => event,
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
    let ends = Ends::of(ops, family);
    let done = match event {
        Begins::Listening => proxy::listening(cookie, member, sk, &ends),
        Begins::Connecting => connecting(cookie, member, sk, &ends),
        Begins::Connected => connected(ctx, cookie, member, sk, &ends),
        Begins::Accepted => accepted(ctx, cookie, member, sk, &ends),
    };
    // From here on the pod is one that takes part: whatever keeps a socket of its out is counted.
    if let Err(why) = done {
        count(why);
    }
}

/// The callbacks that are of interest.
enum Event {
    Begins(Begins),
    InUse,
    Closed,
}

/// Those of a socket's beginning.
enum Begins {
    Listening,
    Connecting,
    Connected,
    Accepted,
}

impl Event {
    #[inline(always)]
    fn of(ops: *mut bpf_sock_ops) -> Option<Self> {
        match load!(ops, op) {
            BPF_SOCK_OPS_TCP_LISTEN_CB => Some(Self::Begins(Begins::Listening)),
            BPF_SOCK_OPS_TCP_CONNECT_CB => Some(Self::Begins(Begins::Connecting)),
            BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB => Some(Self::Begins(Begins::Connected)),
            BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => Some(Self::Begins(Begins::Accepted)),
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
fn connecting(cookie: u64, member: &Member, sk: *mut bpf_sock, ends: &Ends) -> Result<(), Count> {
    let candidate = candidate(cookie, member, sk, ends);
    let state = if candidate.is_ok() {
        ctx::state_or_new(sk)
    } else {
        ctx::state(sk)
    };
    if let Some(state) = state {
        let (flags, program) = candidate.unwrap_or((0, 0));
        state.reuse(flags);
        state.program = program;
    } else if candidate.is_ok() {
        return Err(Count::NoStorage);
    }
    candidate.map(drop)
}

/// Flags, and an application's program, of a socket that may become an end of a shortcut.
#[inline(always)]
fn candidate(
    cookie: u64,
    member: &Member,
    sk: *mut bpf_sock,
    ends: &Ends,
) -> Result<(u32, u64), Count> {
    let peer = peer_of(cookie, ends).ok_or(Count::Elsewhere)?;
    let same = peer == cookie;
    let allowed = switch(member.place);
    let may = |flags| allowed.allows(cookie, flags);
    let task = Known::task();
    if proxy::is_process(member, task.word(CONFIG.task_tgid())) {
        let fit = if same {
            // Its own application, or itself.
            may(FROM_APPLICATION) || may(INTO_APPLICATION) || member.captures_on(ends.remote_port)
        } else {
            may(between(kinship(&allowed, peer)))
        };
        return if fit {
            Ok((IS_PROXY | CANDIDATE, 0))
        } else {
            Err(Count::Unwanted)
        };
    }
    if !same || !member.captures_on(ends.remote_port) {
        return Err(Count::Direct);
    }
    if !may(FROM_APPLICATION) {
        return Err(Count::Unwanted);
    }
    if !may(INTO_APPLICATION) {
        let tcp = Known::tcp(sk).ok_or(Count::Unreadable)?;
        if !manners::is_nonblocking(tcp).ok_or(Count::Unreadable)? {
            return Err(Count::Blocking);
        }
    }
    let program = manners::program_of(task).ok_or(Count::Unreadable)?;
    Ok((CANDIDATE, program))
}

/// Whether an application's socket may be an end.
#[inline(always)]
fn may_be_end(
    ctx: &SockOpsContext,
    cookie: u64,
    member: &Member,
    sk: *mut bpf_sock,
    whose: Whose,
) -> Result<(), Count> {
    let allowed = switch(member.place);
    if !allowed.allows(cookie, FROM_APPLICATION) {
        return Err(Count::Unwanted);
    }
    if allowed.allows(cookie, INTO_APPLICATION) {
        return Ok(());
    }
    manners::never_block(ctx, member, sk, whose)
}

/// The key of a connection's end. The other end's address must be of a pod that takes part.
#[inline(always)]
fn key_of(cookie: u64, ends: &Ends) -> Result<EndKey, Count> {
    let peer = peer_of(cookie, ends).ok_or(Count::Elsewhere)?;
    Ok(EndKey::new(
        (cookie, ends.local, ends.local_port),
        (peer, ends.remote, ends.remote_port),
    ))
}

/// The connecting end is established. What the other end is can only be guessed; it says so itself a moment later.
#[inline(always)]
fn connected(
    ctx: &SockOpsContext,
    cookie: u64,
    member: &Member,
    sk: *mut bpf_sock,
    ends: &Ends,
) -> Result<(), Count> {
    // One that is no candidate was counted when it connected.
    let Some(state) = ctx::state(sk).filter(|state| state.flags & CANDIDATE != 0) else {
        return Ok(());
    };
    if state.flags & IS_PROXY == 0 {
        let whose = Whose::program(cookie, state.program);
        may_be_end(ctx, cookie, member, sk, whose)?;
    }
    let own = key_of(cookie, ends)?;
    let to = if own.peer_cookie != cookie || member.captures_on(ends.remote_port) {
        IS_PROXY
    } else {
        0
    };
    join(ctx, member, sk, state, &own, to, None)
}

/// The accepting end is established. It takes part if the other does already.
#[inline(always)]
fn accepted(
    ctx: &SockOpsContext,
    cookie: u64,
    member: &Member,
    sk: *mut bpf_sock,
    ends: &Ends,
) -> Result<(), Count> {
    let own = key_of(cookie, ends)?;
    // SAFETY: copied at once.
    let client = unsafe { ENDS.get(own.turned()) }.copied();
    let client = client.ok_or(Count::Unpaired)?;
    let state = ctx::state(sk);
    let by_proxy = state
        .as_ref()
        .is_some_and(|state| state.flags & IS_PROXY != 0);
    if !by_proxy {
        let whose = Whose::port(cookie, ends.local_port);
        may_be_end(ctx, cookie, member, sk, whose)?;
    }
    let state = state
        .or_else(|| ctx::state_or_new(sk))
        .ok_or(Count::NoStorage)?;
    join(ctx, member, sk, state, &own, client.role, Some(client))
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
) -> Result<(), Count> {
    // What was marked before, and what an earlier connection left in a sockhash, stays with TCP.
    if state.hazard != 0 || state.flags & IN_SOCKHASH != 0 {
        return Err(Count::Hazards);
    }
    let role = state.flags & IS_PROXY;
    let allowed = switch(member.place);
    let kin = kinship(&allowed, own.peer_cookie);
    let may = |needs: Option<u32>| needs.is_some_and(|flags| allowed.allows(own.cookie, flags));
    let (may_send, may_receive) = (
        may(needs(own, kin, role, to)),
        may(needs(own, kin, to, role)),
    );
    if !may_send && !may_receive {
        return Err(Count::Unwanted);
    }
    let hazards = hazards::present(Known::tcp(sk).ok_or(Count::Unreadable)?);
    let sends = may_send && !hazards.forbid_sending();
    let receives = may_receive && !hazards.forbid_receiving();
    if !sends && !receives {
        return Err(Count::Hazards);
    }
    if !share::has_room_for_an_end(member.place) {
        return Err(Count::Refused);
    }
    let sock = address_of(sk).ok_or(Count::Unreadable)?;
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
    state.flags = state.flags & !ONE_NAMESPACE | kin;
    if let Some(peer) = peer {
        state.needs = needs(own, kin, role, peer.role).ok_or(Count::Unwanted)?;
        state.peer_place = peer.place;
        state.peer = peer;
    }
    if !set_callbacks(ctx, callbacks(ctx) | BPF_SOCK_OPS_STATE_CB_FLAG) {
        return Err(Count::Refused);
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
        return Err(Count::Refused);
    }
    state.flags |= joined;
    if ENDS.insert(own, record, NOEXIST).is_ok() {
        share::count_ends(member.place, 1);
        count(Count::Ends);
    } else {
        // An entry of the same ends is of a socket that is no more, and whose end nobody saw: the kernel lets a namespace have one
        // at a time.
        ENDS.insert(own, record, 0).map_err(|_| Count::Refused)?;
    }
    if own.cookie != own.peer_cookie {
        keep_alive(ctx.ops);
    }
    Ok(())
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
    if record.is_some_and(|record| record.state == address) && ENDS.remove(own).is_ok() {
        share::count_ends(state.place, -1);
        count(Count::Closed);
    }
}
