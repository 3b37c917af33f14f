//! Whose socket it is. iptables compares the filesystem ids of the task that made the socket (`xt_owner`,
//! `file->f_cred->fsuid`); the BPF helper knows only real ids, so they are read from the task where that is allowed.

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::{
        bpf_probe_read_kernel,
        generated::{bpf_get_current_task, bpf_get_current_uid_gid},
    },
};
use sidestep_ebpf_common::flow::HAS_CREATOR;

use crate::{ctx, maps};

/// A task's filesystem ids.
#[derive(Clone, Copy)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
}

/// The creator's ids; those of the current task where the kernel made the socket (an MPTCP subflow) or it was made
/// before the pod was armed.
#[inline(always)]
pub fn of(sk: *mut bpf_sock) -> Ids {
    match recorded(sk) {
        Some(ids) => ids,
        None => current(),
    }
}

/// The creator's ids, if they were recorded.
#[inline(always)]
pub fn recorded(sk: *mut bpf_sock) -> Option<Ids> {
    let state = ctx::state(sk)?;
    if state.flags & HAS_CREATOR == 0 {
        return None;
    }
    Some(Ids {
        uid: state.uid,
        gid: state.gid,
    })
}

/// The current task's ids, for hooks that may ask for real ids.
#[inline(always)]
pub fn current() -> Ids {
    if let Some(ids) = from_task() {
        return ids;
    }
    // SAFETY: takes nothing and cannot fail in process context.
    let ids = unsafe { bpf_get_current_uid_gid() };
    Ids {
        uid: ids as u32,
        gid: (ids >> 32) as u32,
    }
}

/// The current task's filesystem ids, where kernel memory may be read.
#[inline(always)]
pub fn from_task() -> Option<Ids> {
    if maps::task_cred() == 0 {
        return None;
    }
    // SAFETY: probe reads check the address; the offsets are the running kernel's.
    unsafe {
        let task = bpf_get_current_task();
        let cred =
            bpf_probe_read_kernel((task + u64::from(maps::task_cred())) as *const u64).ok()?;
        let uid =
            bpf_probe_read_kernel((cred + u64::from(maps::cred_fsuid())) as *const u32).ok()?;
        let gid =
            bpf_probe_read_kernel((cred + u64::from(maps::cred_fsgid())) as *const u32).ok()?;
        Some(Ids { uid, gid })
    }
}
