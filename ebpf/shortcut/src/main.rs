//! Entry points of the shortcut, which moves bytes from socket to socket inside the kernel. The programs themselves are
//! in the modules; [`maps`] holds every map.
#![no_std]
#![no_main]
#![expect(
    clippy::cast_possible_truncation,
    reason = "the kernel's context fields are wider than what they hold"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the hook macros call with values"
)]
#![expect(missing_docs, reason = "the hook macros make functions without them")]
#![expect(
    clippy::inline_always,
    reason = "a hook must end up in one function: the verifier follows context pointers poorly through calls"
)]

mod ctx;
mod hazards;
mod keepalive;
mod manners;
mod maps;
mod message;
mod mptcp;
mod proxy;
mod readers;
mod share;
mod sockops;
mod whose;

use aya_ebpf::{
    macros::{cgroup_sockopt, fentry, sk_msg, sock_ops},
    programs::{FEntryContext, RawTracePointContext, SkMsgContext, SockOpsContext, SockoptContext},
};
use core::ffi::c_void;
use hazards::Refused;
use sidestep_ebpf_hook::memory::peek;

#[sk_msg]
pub fn on_message(ctx: SkMsgContext) -> u32 {
    const PASS: u32 = 1;
    message::run(&ctx);
    PASS
}

#[sock_ops]
pub fn on_connection(ctx: SockOpsContext) -> u32 {
    sockops::run(&ctx);
    0
}

#[sock_ops]
pub fn on_mptcp(ctx: SockOpsContext) -> u32 {
    mptcp::on_listening(&ctx);
    0
}

#[cgroup_sockopt(setsockopt)]
pub fn on_option(ctx: SockoptContext) -> i32 {
    match hazards::on_option(&ctx) {
        Ok(()) => 1,
        Err(Refused) => 0,
    }
}

#[fentry(function = "tcp_bpf_recvmsg")]
pub fn on_read(ctx: FEntryContext) -> i32 {
    readers::on_read(&ctx);
    0
}

#[fentry(function = "tcp_splice_read")]
pub fn on_splice(ctx: FEntryContext) -> i32 {
    readers::on_splice(&ctx);
    0
}

/// Attached to nothing: the agent runs it to learn how much a socket has not read. The argument is the socket's address.
/// Without the macro, which throws the answer away.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
pub extern "C" fn on_peek(ctx: *mut c_void) -> i32 {
    let sock: u64 = RawTracePointContext::new(ctx).arg(0);
    // What cannot be read any more is of a socket that is gone.
    peek(sock, maps::CONFIG.sk_rmem())
        .unwrap_or(0)
        .cast_signed()
}

/// The word at an address of the kernel's.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp")]
pub extern "C" fn on_word(ctx: *mut c_void) -> i32 {
    let address: u64 = RawTracePointContext::new(ctx).arg(0);
    peek(address, 0).unwrap_or(0).cast_signed()
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel lends helpers such as `bpf_probe_read_kernel` to programs under the GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
