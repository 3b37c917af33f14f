//! `cgroup/recvmsg4` and `recvmsg6`: an answer of the DNS proxy appears to come from the server that was asked.

use aya_ebpf::programs::SockAddrContext;
use sidestep_ebpf_common::DNS_PROXY_PORT;
use sidestep_ebpf_hook::{context::netns_cookie, load};

use crate::{
    ctx::{self, Family},
    pod,
};

/// State of a connected UDP socket (`TCP_ESTABLISHED`).
const ESTABLISHED: u32 = 1;

#[inline(always)]
pub fn run(ctx: &SockAddrContext, family: Family) {
    let ctx = ctx.sock_addr;
    let (from, port) = ctx::user_addr(ctx, family);
    if port != DNS_PROXY_PORT || !from.is_loopback() {
        return;
    }
    if pod::active(netns_cookie(ctx)).is_none() {
        return;
    }
    let Some(sk) = ctx::addr_sock(ctx) else {
        return;
    };
    let Some(state) = ctx::state(sk) else {
        return;
    };
    let connected = load!(sk, state) == ESTABLISHED;
    let asked = if connected && state.origin.is_some() {
        state.origin
    } else {
        state.asked
    };
    if asked.is_some() && asked.addr.is_v4() == from.is_v4() {
        ctx::set_user_addr(ctx, family, &asked.addr, asked.port);
    }
}
