//! `sk_lookup`: the inbound decision. A captured connection is handed to a listening socket of the proxy: no NAT, no
//! connection tracking, and nothing per packet, since the kernel asks only where no connection exists yet.

use core::hint::black_box;

use aya_ebpf::{bindings::bpf_sk_lookup, programs::SkLookupContext};
use sidestep_ebpf_common::{
    Addr, COOKIE_PLACE, LISTENER_SLOTS, ListenerKey, Row, Verdict, decide, inbound,
};
use sidestep_ebpf_hook::{AF_INET, load, load6};

use crate::{ctx::TCP, maps::LISTENERS, pod};

const DROP: u32 = 0;
const PASS: u32 = 1;

#[inline(always)]
pub fn run(ctx: &SkLookupContext) -> u32 {
    let lookup = ctx.lookup;
    if load!(lookup, protocol) != TCP {
        return PASS;
    }
    let Some(pod) = pod::active(black_box(COOKIE_PLACE)) else {
        return PASS;
    };
    let (remote, local) = ends(lookup);
    // A pod's connection to itself is no inbound traffic; the interface does not tell (measured: it is not `lo`).
    if decide::is_local(pod.record, &pod, &remote) {
        return PASS;
    }
    let row = inbound(pod.record, &pod, &local, load!(lookup, local_port) as u16);
    match row.verdict() {
        Verdict::Inbound => {}
        Verdict::Pass | Verdict::Outbound | Verdict::Dns | Verdict::Refuse => {
            pod.count(row);
            return PASS;
        }
    }
    if hand_over(ctx, pod.cookie) {
        pod.count(row);
        return PASS;
    }
    pod.count(Row::InRefused);
    DROP
}

/// Hands the connection to a listening socket that takes its family. Within a reuseport group the kernel still
/// chooses, so the proxy's workers share the load.
#[inline(always)]
fn hand_over(ctx: &SkLookupContext, cookie: u64) -> bool {
    let mut slot = 0;
    while slot < LISTENER_SLOTS {
        if LISTENERS
            .redirect_sk_lookup(ctx, ListenerKey::new(cookie, slot), 0)
            .is_ok()
        {
            return true;
        }
        slot += 1;
    }
    false
}

#[inline(always)]
fn ends(lookup: *mut bpf_sk_lookup) -> (Addr, Addr) {
    if load!(lookup, family) == AF_INET {
        (
            Addr::v4(black_box(load!(lookup, remote_ip4))),
            Addr::v4(black_box(load!(lookup, local_ip4))),
        )
    } else {
        (load6!(lookup, remote_ip6), load6!(lookup, local_ip6))
    }
}
