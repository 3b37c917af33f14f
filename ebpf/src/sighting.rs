//! Tells the agent of namespaces that it may want to arm. A namespace that is armed never gets here; another is told of
//! once in a while, so that nobody can flood the agent.

use aya_ebpf::{
    bindings::BPF_ANY,
    helpers::generated::{
        bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns,
    },
};
use sidestep_ebpf_common::{
    Sighting,
    sighting::{EVERYBODY, LISTENERS, QUIET_NS, QuietKey, Seen},
};
use sidestep_ebpf_hook::memory::{peek, pointer};

use crate::maps::{KERNEL, MISSED, PODS, QUIET, SIGHTINGS};

/// A call from a namespace that is not armed. For hooks in process context.
#[inline(always)]
pub fn of_caller(cookie: u64) {
    // SAFETY: takes nothing and cannot fail in process context.
    let pid = unsafe { bpf_get_current_pid_tgid() } >> 32;
    unless_quiet(cookie, cgroup(), pid as u32, Seen::Connect);
}

/// A listening socket in a namespace that is not armed, or the first of an armed pod's proxy.
#[inline(always)]
pub fn of_listener(cookie: u64, seen: Seen) {
    let pid = pid_of_task().unwrap_or(0);
    match seen {
        Seen::Active => tell(cookie, LISTENERS, pid, now(), seen),
        Seen::Exec | Seen::Connect | Seen::Listen => unless_quiet(cookie, LISTENERS, pid, seen),
    }
}

/// A program was started, anywhere on the node. This is the first that is seen of a pod: by then its process is where
/// the runtime wanted it.
#[inline(always)]
pub fn of_exec() {
    if !KERNEL.readable() {
        return;
    }
    // SAFETY: takes nothing.
    let task = unsafe { bpf_get_current_task() };
    let Some(cookie) = pointer(task, KERNEL.task_nsproxy())
        .and_then(|proxy| pointer(proxy, KERNEL.nsproxy_net()))
        .and_then(|net| pointer(net, KERNEL.net_cookie()))
    else {
        return;
    };
    // SAFETY: only asked whether it is there.
    if unsafe { PODS.get(cookie) }.is_none() {
        unless_quiet(cookie, cgroup(), pid_of_task().unwrap_or(0), Seen::Exec);
    }
}

#[inline(always)]
fn unless_quiet(cookie: u64, cgroup: u64, pid: u32, seen: Seen) {
    let now = now();
    let who = QuietKey { cookie, cgroup };
    let all = QuietKey {
        cookie,
        cgroup: EVERYBODY,
    };
    if is_quiet(&all, now) || is_quiet(&who, now) {
        return;
    }
    // Where two CPUs come here at once the agent is told twice, which does no harm.
    let _: Result<(), i32> = QUIET.insert(who, now + QUIET_NS, u64::from(BPF_ANY));
    tell(cookie, cgroup, pid, now, seen);
}

#[inline(always)]
fn is_quiet(who: &QuietKey, now: u64) -> bool {
    // SAFETY: one word, copied at once.
    unsafe { QUIET.get(who) }.is_some_and(|until| *until > now)
}

/// Where nobody reads, the buffer fills up and what follows is lost, and counted. The agent's own look finds it later.
#[inline(always)]
fn tell(cookie: u64, cgroup: u64, pid: u32, at: u64, seen: Seen) {
    let sighting = Sighting {
        cookie,
        cgroup,
        at,
        pid,
        seen: seen as u32,
    };
    if SIGHTINGS.output(sighting, 0).is_err()
        && let Some(missed) = MISSED.get_ptr_mut(0)
    {
        // SAFETY: the kernel gives each CPU a value of its own, which lives as long as the map.
        unsafe { *missed += 1 };
    }
}

/// The current task's.
#[inline(always)]
fn cgroup() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_get_current_cgroup_id() }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

/// `sockops` may not ask for it before Linux 6.10.
#[inline(always)]
fn pid_of_task() -> Option<u32> {
    if !KERNEL.readable() {
        return None;
    }
    // SAFETY: takes nothing.
    let task = unsafe { bpf_get_current_task() };
    peek(task, KERNEL.task_tgid())
}
