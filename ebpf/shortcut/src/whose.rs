//! Whose an address is, as the agent published it.

use sidestep_ebpf_common::{
    Addr,
    shortcut::{ONE_NAMESPACE, PodSwitch},
};
use sidestep_ebpf_hook::ends::Ends;

use crate::maps::{ADDRESSES, MEMBERS, SWITCHES};

/// The namespace that has the other end. Loopback addresses are the pod's own; any other must be published, and so must
/// this end's: a pod may give itself whatever address it likes.
#[inline(always)]
pub fn peer_of(cookie: u64, ends: &Ends) -> Option<u64> {
    let local = if is_own(&ends.local) {
        cookie
    } else {
        owner(&ends.local)?
    };
    if local != cookie {
        return None;
    }
    if is_own(&ends.remote) {
        return Some(cookie);
    }
    let remote = owner(&ends.remote)?;
    // From a loopback address only the pod itself is reached.
    (remote == cookie || !is_own(&ends.local)).then_some(remote)
}

/// `127.0.0.0/8`, `::1`, and `::6`, from where the proxy calls the application.
#[inline(always)]
fn is_own(addr: &Addr) -> bool {
    addr.is_loopback() || addr.same(&Addr([0, 0, 0, 6_u32.to_be()]))
}

#[inline(always)]
fn owner(addr: &Addr) -> Option<u64> {
    // SAFETY: copied at once.
    unsafe { ADDRESSES.get(addr) }.copied()
}

/// [`ONE_NAMESPACE`] if this pod and another are of one Kubernetes namespace, as far as the agent has said. Within a pod nobody
/// asks.
#[inline(always)]
pub fn kinship(own: &PodSwitch, peer: u64) -> u32 {
    if own.cookie == peer {
        return 0;
    }
    // SAFETY: the element's memory outlives the program's run.
    let other = unsafe { MEMBERS.get(peer) }.and_then(|member| SWITCHES.get(member.place));
    if other.is_some_and(|other| own.is_beside(other, peer)) {
        ONE_NAMESPACE
    } else {
        0
    }
}
