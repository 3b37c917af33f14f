//! Whose socket it is. iptables compares the filesystem ids of the task that opened the socket
//! (`sk->sk_socket->file->f_cred` in `xt_owner`), and so do the programs, where kernel memory may be read. Where it may
//! not, `sock_create` notes the real ids of the creator, which are all that a BPF helper tells.

use aya_ebpf::{
    bindings::bpf_sock,
    helpers::{bpf_probe_read_kernel, generated::bpf_get_current_uid_gid},
};
use sidestep_ebpf_common::flow::HAS_CREATOR;
use sidestep_ebpf_hook::memory::{Known, peek, pointer};

use crate::{ctx, maps::KERNEL};

/// A task's filesystem ids.
#[derive(Clone, Copy)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
}

/// The creator's ids. The kernel itself makes the subflow of an MPTCP socket, which has no file: it is the current
/// task's, which is connecting it.
#[inline(always)]
pub fn of(sk: *mut bpf_sock) -> Ids {
    match of_file(sk).or_else(|| recorded(sk)) {
        Some(ids) => ids,
        None => current(),
    }
}

/// The same, where the hook does not let a program ask for real ids.
#[inline(always)]
pub fn of_listener(sk: *mut bpf_sock) -> Option<Ids> {
    of_file(sk).or_else(|| recorded(sk)).or_else(of_task)
}

/// Notes the creator of a socket, where it cannot be read from the socket later.
#[inline(always)]
pub fn record<T>(sk: *mut T, ids: Ids) {
    if KERNEL.readable() {
        return;
    }
    // Without memory for a record, connect falls back to the ids of the task that connects.
    if let Some(state) = ctx::state_or_new(sk) {
        state.uid = ids.uid;
        state.gid = ids.gid;
        state.flags |= HAS_CREATOR;
    }
}

/// The current task's ids, for hooks that may ask for real ids.
#[inline(always)]
pub fn current() -> Ids {
    if let Some(ids) = of_task() {
        return ids;
    }
    // SAFETY: takes nothing and cannot fail in process context.
    let ids = unsafe { bpf_get_current_uid_gid() };
    Ids {
        uid: ids as u32,
        gid: (ids >> 32) as u32,
    }
}

#[inline(always)]
fn recorded(sk: *mut bpf_sock) -> Option<Ids> {
    if KERNEL.readable() {
        return None;
    }
    let state = ctx::state(sk)?;
    (state.flags & HAS_CREATOR != 0).then_some(Ids {
        uid: state.uid,
        gid: state.gid,
    })
}

/// From the file that the socket was opened as.
#[inline(always)]
fn of_file(sk: *mut bpf_sock) -> Option<Ids> {
    if !KERNEL.readable() {
        return None;
    }
    if let Some(tcp) = Known::tcp(sk) {
        let file = tcp
            .follow(KERNEL.sk_socket())?
            .follow(KERNEL.socket_file())?;
        return file.follow(KERNEL.file_cred()).map(known_ids);
    }
    // As `address_of` does, which costs six instructions more here.
    let on_stack = sk as u64;
    // SAFETY: probe reads check the address.
    let sk = unsafe { bpf_probe_read_kernel(&raw const on_stack) }.ok()?;
    let socket = pointer(sk, KERNEL.sk_socket())?;
    let file = pointer(socket, KERNEL.socket_file())?;
    ids(pointer(file, KERNEL.file_cred())?)
}

#[inline(always)]
fn of_task() -> Option<Ids> {
    if !KERNEL.readable() {
        return None;
    }
    Known::task().follow(KERNEL.task_cred()).map(known_ids)
}

#[inline(always)]
fn known_ids(cred: Known) -> Ids {
    Ids {
        uid: cred.word(KERNEL.cred_fsuid()),
        gid: cred.word(KERNEL.cred_fsgid()),
    }
}

#[inline(always)]
fn ids(cred: u64) -> Option<Ids> {
    let uid = peek(cred, KERNEL.cred_fsuid())?;
    let gid = peek(cred, KERNEL.cred_fsgid())?;
    Some(Ids { uid, gid })
}
