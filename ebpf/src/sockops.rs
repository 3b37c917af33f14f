//! `sockops`: hands the original destination from the client's socket to the one that the proxy accepts, and finds the
//! proxy's listening sockets.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
        BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_TCP_CLOSE, bpf_sock_ops,
    },
    helpers::generated::bpf_sock_hash_update,
    programs::SockOpsContext,
};
use sidestep_ebpf_common::{
    DNS_PROXY_PORT, FlowKey, LISTENER_SLOTS, ListenerKey, Origin, Row, flow::ACCEPTED,
    sighting::Seen,
};
use sidestep_ebpf_hook::{
    AF_INET, AF_INET6, EXIST, NOEXIST,
    context::{callbacks, netns_cookie, ops_sock, set_callbacks},
    ends::Ends,
    load,
};

use crate::{
    creator, ctx,
    maps::{FLOWS, LISTENERS},
    pod::{self, Pod},
    sighting,
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
    // Only a captured connection's client has an origin before it is established, and when it is closed.
    let origin = match event {
        Event::Listening | Event::Accepted => Origin::NONE,
        Event::Connecting | Event::Closed => match ops_sock(ops).and_then(ctx::state) {
            Some(state) if state.origin.is_some() && state.flags & ACCEPTED == 0 => state.origin,
            _ => return,
        },
    };
    let cookie = netns_cookie(ops);
    let Some(pod) = pod::armed(cookie) else {
        if matches!(event, Event::Listening) {
            sighting::of_listener(cookie, Seen::Listen);
        }
        return;
    };
    let ends = Ends::of(ops, family);
    match event {
        Event::Listening => listening(&pod, ops, &ends),
        Event::Connecting => connecting(&pod, ctx, &ends, origin),
        Event::Accepted => accepted(&pod, ops, &ends),
        Event::Closed => closed(&pod, &ends),
    }
}

/// The callbacks that are of interest.
enum Event {
    Listening,
    Connecting,
    Accepted,
    Closed,
}

impl Event {
    #[inline(always)]
    fn of(ops: *mut bpf_sock_ops) -> Option<Self> {
        match load!(ops, op) {
            BPF_SOCK_OPS_TCP_LISTEN_CB => Some(Self::Listening),
            BPF_SOCK_OPS_TCP_CONNECT_CB => Some(Self::Connecting),
            BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => Some(Self::Accepted),
            BPF_SOCK_OPS_STATE_CB if load!(ops, __bindgen_anon_1.args[1]) == BPF_TCP_CLOSE => {
                Some(Self::Closed)
            }
            _ => None,
        }
    }
}

/// The flow of which this socket is the client's end.
#[inline(always)]
fn as_client(cookie: u64, ends: &Ends) -> FlowKey {
    FlowKey::new(
        cookie,
        ends.local,
        ends.local_port,
        ends.remote,
        ends.remote_port,
    )
}

/// The flow of which this socket is the proxy's end.
#[inline(always)]
fn as_server(cookie: u64, ends: &Ends) -> FlowKey {
    FlowKey::new(
        cookie,
        ends.remote,
        ends.remote_port,
        ends.local,
        ends.local_port,
    )
}

/// The proxy listens. On its inbound port: interception is on from here, as from the moment iptables' rules are there.
#[inline(always)]
fn listening(pod: &Pod, ops: *mut bpf_sock_ops, ends: &Ends) {
    let inbound = ends.local_port == pod.record.inbound_port;
    if !inbound && ends.local_port != pod.record.outbound_port {
        return;
    }
    let (Some(sk), Some(proxy)) = (ops_sock(ops), pod.proxy()) else {
        return;
    };
    // Where nothing tells, the agent's sweep finds the listener, and asks the process for its ids.
    let Some(ids) = creator::of_listener(sk) else {
        return;
    };
    if !pod.record.is_proxy(ids.uid, ids.gid) {
        return;
    }
    let wildcard = ends.local.is_unspecified();
    if !inbound {
        proxy.spread = u32::from(wildcard);
        return;
    }
    // Only a wildcard listener takes what comes from outside: the redirection's destination there is an address of
    // the pod's interface. An MPTCP listener cannot be steered to (EOPNOTSUPP): then what comes is refused.
    if wildcard {
        keep(pod.cookie, ops);
    }
    if proxy.active == 0 {
        sighting::of_listener(pod.cookie, Seen::Active);
    }
    proxy.active = 1;
}

/// Puts a listening socket into the first free slot; none is taken from a live listener.
#[inline(always)]
fn keep(cookie: u64, ops: *mut bpf_sock_ops) {
    let map = (&raw const LISTENERS).cast_mut().cast();
    let mut slot = 0;
    while slot < LISTENER_SLOTS {
        let mut key = ListenerKey::new(cookie, slot);
        // SAFETY: a valid context, map and key.
        if unsafe { bpf_sock_hash_update(ops, map, (&raw mut key).cast(), NOEXIST) } == 0 {
            return;
        }
        slot += 1;
    }
}

/// The client's port is known now: publish where the connection wants to go, until the socket is closed.
#[inline(always)]
fn connecting(pod: &Pod, ctx: &SockOpsContext, ends: &Ends, origin: Origin) {
    let key = as_client(pod.cookie, ends);
    if let Some(open) = pod.open()
        && open.has_room()
        && FLOWS.insert(key, origin, NOEXIST).is_ok()
    {
        open.add(1);
    } else if FLOWS.insert(key, origin, EXIST).is_err() {
        // Else it took the place of an entry whose connection ended unseen, which would have told the proxy of another
        // destination. Without an entry the proxy does not learn the destination and closes the connection.
        pod.count(Row::OutFull);
    }
    // Other programs' flags stay: the call replaces all of them.
    set_callbacks(ctx, callbacks(ctx) | BPF_SOCK_OPS_STATE_CB_FLAG);
}

/// The proxy's end of a connection that the pod made.
#[inline(always)]
fn accepted(pod: &Pod, ops: *mut bpf_sock_ops, ends: &Ends) {
    let server_port = ends.local_port;
    if server_port != pod.record.outbound_port
        && server_port != pod.record.inbound_port
        && server_port != DNS_PROXY_PORT
    {
        return;
    }
    // SAFETY: copied at once.
    let Some(origin) = (unsafe { FLOWS.get(as_server(pod.cookie, ends)) }).copied() else {
        return;
    };
    if let Some(state) = ops_sock(ops).and_then(ctx::state_or_new) {
        state.origin = Origin::new(origin.addr, origin.port);
        state.flags |= ACCEPTED;
    }
}

/// The client's socket is closed, or its connection failed.
#[inline(always)]
fn closed(pod: &Pod, ends: &Ends) {
    if FLOWS.remove(as_client(pod.cookie, ends)).is_ok()
        && let Some(open) = pod.open()
    {
        open.add(-1);
    }
}
