//! Entry points: one per hook, each a line that turns the hook's answer into the kernel's. The hooks themselves are in
//! the module of their name; [`maps`] holds every map.
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
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod connect;
mod creator;
mod ctx;
mod getpeername;
mod getsockopt;
mod lookup;
mod maps;
mod pod;
mod recvmsg;
mod sendmsg;
mod sighting;
mod sock_create;
mod sockops;
mod steer;

use aya_ebpf::{
    macros::{cgroup_sock, cgroup_sock_addr, cgroup_sockopt, raw_tracepoint, sk_lookup, sock_ops},
    programs::{
        RawTracePointContext, SkLookupContext, SockAddrContext, SockContext, SockOpsContext,
        SockoptContext,
    },
};
use ctx::Family::{V4, V6};

/// Answers of the cgroup hooks: 0 makes the system call fail with EPERM.
const ALLOW: i32 = 1;
const DENY: i32 = 0;

/// The call must fail: letting it go on would go around the proxy.
struct Refused;

#[inline(always)]
fn verdict(answer: Result<(), Refused>) -> i32 {
    match answer {
        Ok(()) => ALLOW,
        Err(Refused) => DENY,
    }
}

#[cgroup_sock(sock_create)]
pub fn on_sock_create(ctx: SockContext) -> i32 {
    verdict(sock_create::run(&ctx))
}

#[cgroup_sock_addr(connect4)]
pub fn on_connect4(ctx: SockAddrContext) -> i32 {
    verdict(connect::run(&ctx, V4))
}

#[cgroup_sock_addr(connect6)]
pub fn on_connect6(ctx: SockAddrContext) -> i32 {
    verdict(connect::run(&ctx, V6))
}

#[cgroup_sock_addr(sendmsg4)]
pub fn on_sendmsg4(ctx: SockAddrContext) -> i32 {
    verdict(sendmsg::run(&ctx, V4))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn on_sendmsg6(ctx: SockAddrContext) -> i32 {
    verdict(sendmsg::run(&ctx, V6))
}

#[cgroup_sock_addr(recvmsg4)]
pub fn on_recvmsg4(ctx: SockAddrContext) -> i32 {
    recvmsg::run(&ctx, V4);
    ALLOW
}

#[cgroup_sock_addr(recvmsg6)]
pub fn on_recvmsg6(ctx: SockAddrContext) -> i32 {
    recvmsg::run(&ctx, V6);
    ALLOW
}

#[cgroup_sock_addr(getpeername4)]
pub fn on_getpeername4(ctx: SockAddrContext) -> i32 {
    getpeername::run(&ctx, V4);
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub fn on_getpeername6(ctx: SockAddrContext) -> i32 {
    getpeername::run(&ctx, V6);
    ALLOW
}

#[cgroup_sockopt(getsockopt)]
pub fn on_getsockopt(ctx: SockoptContext) -> i32 {
    getsockopt::run(&ctx);
    ALLOW
}

#[sock_ops]
pub fn on_sock_ops(ctx: SockOpsContext) -> u32 {
    sockops::run(&ctx);
    0
}

/// Not of the pods' cgroup: every start of a program on the node.
#[raw_tracepoint]
pub fn on_exec(_: RawTracePointContext) -> i32 {
    sighting::of_exec();
    0
}

/// One instance per pod, attached to its network namespace.
#[sk_lookup]
pub fn on_sk_lookup(ctx: SkLookupContext) -> u32 {
    lookup::run(&ctx)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel lends helpers such as `bpf_probe_read_kernel` to programs under the GPL only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
