//! Which sockets are the proxy's: those that a capture listener accepts (they start with a copy of the listener's state), and
//! those that the process connects that opened these listeners. The user tells nothing: other programs of the sidecar have
//! the same.

use aya_ebpf::bindings::bpf_sock;
use sidestep_ebpf_common::shortcut::{Count, IS_PROXY, Member};
use sidestep_ebpf_hook::{ends::Ends, memory::Known};

use crate::{
    ctx, manners,
    maps::{CONFIG, PROXY_PROCESSES, Whose},
};

/// Who opens a capture listener is the proxy, from then on until another process does.
#[inline(always)]
pub fn listening(
    cookie: u64,
    member: &Member,
    sk: *mut bpf_sock,
    ends: &Ends,
) -> Result<(), Count> {
    if !member.captures_on(ends.local_port) {
        manners::forget(member, Whose::port(cookie, ends.local_port));
        // It may have listened where the proxy does.
        if let Some(state) = ctx::state(sk) {
            state.reuse(0);
        }
        return Ok(());
    }
    let process = proxy_process(member)?;
    if let Some(place) = PROXY_PROCESSES.get_ptr_mut(member.place) {
        // SAFETY: a live element of one word.
        unsafe { *place = process };
    }
    ctx::state_or_new(sk)
        .ok_or(Count::NoStorage)?
        .reuse(IS_PROXY);
    Ok(())
}

/// The current process, if it may be the proxy.
#[inline(always)]
fn proxy_process(member: &Member) -> Result<u32, Count> {
    let task = Known::task();
    let cred = task.follow(CONFIG.task_cred()).ok_or(Count::Unreadable)?;
    if !member.may_be_proxy(
        cred.word(CONFIG.cred_fsuid()),
        cred.word(CONFIG.cred_fsgid()),
    ) {
        return Err(Count::Foreign);
    }
    Ok(task.word(CONFIG.task_tgid()))
}

/// Whether a process is the proxy.
#[inline(always)]
pub fn is_process(member: &Member, process: u32) -> bool {
    PROXY_PROCESSES
        .get(member.place)
        .is_some_and(|proxy| *proxy != 0 && *proxy == process)
}
