//! `cgroup/sendmsg4` and `sendmsg6`: datagrams sent without connect. Only DNS is ever redirected.

use aya_ebpf::programs::SockAddrContext;
use sidestep_ebpf_common::{DNS_PROXY_PORT, Origin, Proto, Verdict, outbound};
use sidestep_ebpf_hook::context::netns_cookie;

use crate::{
    Refused, connect,
    ctx::{self, Family},
    pod,
};

#[inline(always)]
pub fn run(ctx: &SockAddrContext, family: Family) -> Result<(), Refused> {
    let ctx = ctx.sock_addr;
    let Some(pod) = pod::active(netns_cookie(ctx)) else {
        return Ok(());
    };
    let (Some(Proto::Udp), Some(sk)) = (ctx::proto(ctx), ctx::addr_sock(ctx)) else {
        return Ok(());
    };
    let (wanted, port) = ctx::user_addr(ctx, family);
    let attempt = connect::attempt(&pod, sk, Proto::Udp, wanted, port);
    let row = outbound(pod.record, &pod, &attempt);
    pod.count(row);
    if row.verdict() != Verdict::Dns {
        // What was asked before stays: its answer may still be under way, and is known by its sender.
        return Ok(());
    }
    let state = ctx::state_or_new(sk).ok_or(Refused)?;
    state.asked = Origin::new(attempt.dst, attempt.port);
    if attempt.bound.is_unspecified() {
        let source = pod.record.source_for(&attempt.dst, attempt.local);
        ctx::set_source(ctx, family, &source);
    }
    let target = attempt.dst.loopback_of_family();
    ctx::set_user_addr(ctx, family, &target, DNS_PROXY_PORT);
    Ok(())
}
