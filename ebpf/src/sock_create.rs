//! `cgroup/sock_create`: notes who makes a socket, and refuses raw TCP sockets, which iptables would catch and connect
//! hooks never see.

use aya_ebpf::programs::SockContext;
use sidestep_ebpf_common::{Row, flow::HAS_CREATOR, pod::STRICT};

use crate::{
    Refused, creator,
    ctx::{self, TCP, load},
    pod,
};

const SOCK_RAW: u32 = 3;
const IPPROTO_RAW: u32 = 255;

#[inline(always)]
pub fn run(ctx: &SockContext) -> Result<(), Refused> {
    let cookie = ctx::netns_cookie(ctx.sock);
    let Some(pod) = pod::armed(cookie) else {
        return Ok(());
    };
    let ids = creator::current();
    let raw = load!(ctx.sock, type_) == SOCK_RAW
        && matches!(load!(ctx.sock, protocol), TCP | IPPROTO_RAW);
    if raw
        && pod.record.has(STRICT)
        && !pod.record.is_proxy(ids.uid, ids.gid)
        && pod::active(cookie).is_some()
    {
        pod.count(Row::RawRefused);
        return Err(Refused);
    }
    // Without memory for a record, connect falls back to the ids of the task that connects.
    if let Some(state) = ctx::state_or_new(ctx.sock) {
        state.uid = ids.uid;
        state.gid = ids.gid;
        state.flags |= HAS_CREATOR;
    }
    Ok(())
}
