//! `cgroup/connect4` and `connect6`: the outbound decision.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_addr},
    helpers::generated::bpf_set_retval,
    programs::SockAddrContext,
};
use sidestep_ebpf_common::{
    Addr, Attempt, DNS_PROXY_PORT, Origin, Proto, Row, Verdict, decide, flow::BOUND_BY_US, outbound,
};
use sidestep_ebpf_hook::context::netns_cookie;

use crate::{
    Refused, creator,
    ctx::{self, Family},
    pod::{self, Open, Pod},
    sighting, steer,
};

/// What the kernel says where no route leads from a socket's address.
const EINVAL: i32 = 22;

#[inline(always)]
pub fn run(ctx: &SockAddrContext, family: Family) -> Result<(), Refused> {
    let ctx = ctx.sock_addr;
    let cookie = netns_cookie(ctx);
    let Some((pod, proxy)) = pod::active_with_proxy(cookie) else {
        if pod::armed(cookie).is_none() {
            sighting::of_caller(cookie);
        }
        return Ok(());
    };
    let (Some(proto), Some(sk)) = (ctx::proto(ctx), ctx::addr_sock(ctx)) else {
        return Ok(());
    };
    // Before the decision: what an earlier connect left must not look like the program's own choice.
    if let Some(state) = ctx::state(sk) {
        state.origin.forget();
        steer::release(ctx, family, state.flags);
    }
    let (wanted, port) = ctx::user_addr(ctx, family);
    let attempt = attempt(&pod, sk, proto, wanted, port);
    let row = bounded(&pod, proto, outbound(pod.record, &pod, &attempt));
    pod.count(row);
    let target = match row.verdict() {
        Verdict::Pass => return Ok(()),
        Verdict::Refuse => return Err(Refused),
        Verdict::Outbound => pod.record.outbound_port,
        Verdict::Inbound => pod.record.inbound_port,
        Verdict::Dns => DNS_PROXY_PORT,
    };
    if attempt.bound.is_v4() && attempt.bound.is_loopback() && !attempt.local {
        // No route leads there from a loopback address; a connection to the proxy would hide that.
        // SAFETY: takes a number, in a hook that may set it.
        unsafe { bpf_set_retval(-EINVAL) };
        return Err(Refused);
    }
    let spread = target == pod.record.outbound_port && proxy.spread != 0;
    redirect(&pod, ctx, sk, family, &attempt, target, spread)
}

/// A captured TCP connection takes a place in `FLOWS`, of which a pod may have a share: one that has it all is told at once.
/// (The bound itself is where the entry is written, since a connection may begin long after its `connect`.)
#[inline(always)]
fn bounded(pod: &Pod, proto: Proto, row: Row) -> Row {
    match (proto, row.verdict()) {
        (Proto::Tcp, Verdict::Inbound | Verdict::Outbound | Verdict::Dns)
            if !pod.open().is_some_and(Open::has_room) =>
        {
            Row::OutFull
        }
        _ => row,
    }
}

/// Collects what the decision needs to know. `connect` and `sendmsg` share it.
#[inline(always)]
pub fn attempt(pod: &Pod, sk: *mut bpf_sock, proto: Proto, wanted: Addr, port: u16) -> Attempt {
    let bound = ctx::local_addr(sk);
    let dst = wanted.meant_from(&bound);
    let ids = creator::of(sk);
    Attempt {
        proto,
        dst,
        port,
        bound,
        local: decide::is_local(pod.record, pod, &dst),
        uid: ids.uid,
        gid: ids.gid,
    }
}

/// Remembers where the connection wanted to go, then sends it to the proxy.
#[inline(always)]
fn redirect(
    pod: &Pod,
    ctx: *mut bpf_sock_addr,
    sk: *mut bpf_sock,
    family: Family,
    attempt: &Attempt,
    port: u16,
    spread: bool,
) -> Result<(), Refused> {
    // Without a record the proxy could not learn the destination.
    let state = ctx::state_or_new(sk).ok_or(Refused)?;
    state.origin = Origin::new(attempt.dst, attempt.port);
    let plan = steer::Plan {
        dst: attempt.dst,
        port: attempt.port,
        source: pod.record.source_for(&attempt.dst, attempt.local),
        spread,
    };
    let (target, bound) = steer::run(ctx, sk, family, &plan);
    if bound {
        state.flags |= BOUND_BY_US;
    }
    ctx::set_user_addr(ctx, family, &target, port);
    Ok(())
}
