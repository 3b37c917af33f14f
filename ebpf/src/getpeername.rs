//! `cgroup/getpeername4` and `getpeername6`: the application sees whom it called.

use aya_ebpf::programs::SockAddrContext;
use sidestep_ebpf_common::{FlowKey, Origin, flow::ACCEPTED};
use sidestep_ebpf_hook::context::netns_cookie;

use crate::{
    ctx::{self, Family},
    maps::FLOWS,
    pod,
};

#[inline(always)]
pub fn run(ctx: &SockAddrContext, family: Family) {
    let ctx = ctx.sock_addr;
    let Some(sk) = ctx::addr_sock(ctx) else {
        return;
    };
    let origin = match ctx::state(sk) {
        // The proxy's end of a captured connection: its peer is who it says.
        Some(state) if state.flags & ACCEPTED != 0 => return,
        Some(state) if state.origin.is_some() => state.origin,
        _ => {
            let cookie = netns_cookie(ctx);
            if pod::active(cookie).is_none() {
                return;
            }
            let (peer, port) = ctx::user_addr(ctx, family);
            // An MPTCP socket: the connection, and what was kept with it, is its subflow's.
            let key = FlowKey::new(cookie, ctx::local_addr(sk), ctx::local_port(sk), peer, port);
            // SAFETY: copied at once.
            unsafe { FLOWS.get(key) }.copied().unwrap_or(Origin::NONE)
        }
    };
    if origin.is_some() {
        ctx::set_user_addr(ctx, family, &origin.addr, origin.port);
    }
}
