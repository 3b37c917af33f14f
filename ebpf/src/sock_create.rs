//! `cgroup/sock_create`: refuses raw TCP sockets, which iptables would catch and connect hooks never see; and notes who
//! makes a socket, where nothing can be read of that later.

use aya_ebpf::programs::SockContext;
use sidestep_ebpf_common::{Row, pod::STRICT};
use sidestep_ebpf_hook::{context::netns_cookie, load};

use crate::{Refused, creator, ctx::TCP, maps::KERNEL, pod};

const SOCK_RAW: u32 = 3;
const IPPROTO_RAW: u32 = 255;

#[inline(always)]
pub fn run(ctx: &SockContext) -> Result<(), Refused> {
    let raw = load!(ctx.sock, type_) == SOCK_RAW
        && matches!(load!(ctx.sock, protocol), TCP | IPPROTO_RAW);
    if !raw && KERNEL.readable() {
        return Ok(());
    }
    let cookie = netns_cookie(ctx.sock);
    let Some(pod) = pod::armed(cookie) else {
        return Ok(());
    };
    let ids = creator::current();
    if raw
        && pod.record.has(STRICT)
        && !pod.record.is_proxy(ids.uid, ids.gid)
        && pod::active(cookie).is_some()
    {
        pod.count(Row::RawRefused);
        return Err(Refused);
    }
    creator::record(ctx.sock, ids);
    Ok(())
}
