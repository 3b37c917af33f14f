//! Whether the kernel refuses MPTCP's sockets in a sockhash: those that do not may crash when an MPTCP listener accepts a
//! connection that is in one. Only the self-test attaches it, to its own cgroup. Nobody connects to the listener that is
//! put there, so that also a kernel that takes it is safe.

use aya_ebpf::{
    bindings::BPF_SOCK_OPS_TCP_LISTEN_CB, helpers::generated::bpf_sock_hash_update,
    programs::SockOpsContext,
};
use sidestep_ebpf_common::shortcut::MPTCP_PORT;

use crate::{
    ctx::load,
    maps::{MPTCP_ANSWER, MPTCP_SOCKETS, NOEXIST},
};

#[inline(always)]
pub fn on_listening(ctx: &SockOpsContext) {
    let ops = ctx.ops;
    if load!(ops, op) != BPF_SOCK_OPS_TCP_LISTEN_CB || load!(ops, local_port) != MPTCP_PORT.into() {
        return;
    }
    let mut key = 0_u64;
    let map = (&raw const MPTCP_SOCKETS).cast_mut().cast();
    // SAFETY: a valid context, map and key.
    let answer = unsafe { bpf_sock_hash_update(ops, map, (&raw mut key).cast(), NOEXIST) };
    if let Some(slot) = MPTCP_ANSWER.get_ptr_mut(0) {
        // Anything but 0, which is: not asked yet.
        let told = if answer == 0 { 1 } else { answer };
        // SAFETY: a live element of one word.
        unsafe { *slot = told };
    }
}
