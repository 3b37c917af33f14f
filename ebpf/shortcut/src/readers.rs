//! `fentry` on the kernel's own reading: how the sockets of applications are read.
//!
//! Only these two see it, and only where the kernel has trampolines. Who reads by splice(2), or waits for all that was
//! asked for, gets redirected bytes in the wrong order or never. So nothing is put into an application's socket before
//! it was read in the plain way, and nothing after it was read in another.

use aya_ebpf::programs::FEntryContext;
use core::ffi::c_void;
use sidestep_ebpf_common::shortcut::READ_PLAINLY;

use crate::{ctx, maps::CONFIG};

const MSG_WAITALL: i32 = 0x100;

/// `tcp_bpf_recvmsg(sk, msg, len, flags, …)`, which is called for sockets in a sockhash only.
#[inline(always)]
pub fn on_read(ctx: &FEntryContext) {
    let sk: *mut c_void = ctx.arg(0);
    let flags: i32 = ctx.arg(3);
    let Some(state) = ctx::state(sk) else {
        return;
    };
    if flags & MSG_WAITALL != 0 {
        ctx::mark(state);
    } else if state.reader != READ_PLAINLY {
        state.reader = READ_PLAINLY;
    }
}

/// `tcp_splice_read(socket, …)`.
#[inline(always)]
pub fn on_splice(ctx: &FEntryContext) {
    let socket: *const *mut c_void = ctx.arg(0);
    let at = CONFIG.socket_sk() as usize;
    // SAFETY: the verifier knows the type of the pointer and the value of the offset, which is the running kernel's.
    let sk = unsafe { core::ptr::read_volatile(socket.byte_add(at)) };
    if sk.is_null() {
        return;
    }
    if let Some(state) = ctx::state(sk) {
        ctx::mark(state);
    }
}
