//! The pod of a namespace, its sets and its counters.

use aya_ebpf::btf_maps::lpm_trie::Key;
use sidestep_ebpf_common::{
    Addr, AddrKey, AddrSet, GroupKey, GroupSet, Lookups, PodRecord, PortKey, PortSet, ProxyState,
    Row, flow::FLOW_SHARE,
};

use sidestep_ebpf_hook::memory::add;

use crate::maps::{ADDRS, COUNTS, GROUPS, OPEN, PODS, PORTS, PROXIES};

/// An armed pod.
#[derive(Clone, Copy)]
pub struct Pod {
    pub cookie: u64,
    pub record: &'static PodRecord,
}

/// The pod armed in this namespace.
#[inline(always)]
pub fn armed(cookie: u64) -> Option<Pod> {
    // SAFETY: the element's memory outlives the program's run, even where the agent replaces it meanwhile.
    let record = unsafe { PODS.get(cookie)? };
    Some(Pod { cookie, record })
}

/// The pod armed in this namespace, if interception is on.
#[inline(always)]
pub fn active(cookie: u64) -> Option<Pod> {
    active_with_proxy(cookie).map(|(pod, _)| pod)
}

/// The same, with what is known of its proxy.
#[inline(always)]
pub fn active_with_proxy(cookie: u64) -> Option<(Pod, &'static ProxyState)> {
    let pod = armed(cookie)?;
    let proxy: &ProxyState = pod.proxy()?;
    (proxy.active != 0).then_some((pod, proxy))
}

impl Pod {
    /// Counts a decision.
    #[inline(always)]
    pub fn count(&self, row: Row) {
        if let Some(counts) = COUNTS.get_ptr_mut(self.cookie) {
            let index = row as usize;
            // SAFETY: a live per-CPU value; the index is a row's.
            unsafe {
                let slot = (&raw mut (*counts).0).cast::<u64>();
                if index < Row::ALL.len() {
                    *slot.add(index) += 1;
                }
            }
        }
    }

    /// What is known of its proxy. `None` only while the pod is being disarmed.
    #[inline(always)]
    pub fn proxy(&self) -> Option<&'static mut ProxyState> {
        let state = PROXIES.get_ptr_mut(self.cookie)?;
        // SAFETY: the element's memory outlives the program's run; its fields are single words.
        unsafe { state.as_mut() }
    }

    /// Its count of captured connections. `None` only while the pod is being disarmed.
    #[inline(always)]
    pub fn open(&self) -> Option<Open> {
        OPEN.get_ptr_mut(self.cookie).map(Open)
    }
}

/// How many captured connections a pod has open.
#[derive(Clone, Copy)]
pub struct Open(*mut i64);

impl Open {
    /// Whether there may be another. Several CPUs may ask at once, so a few more than the share get through.
    #[inline(always)]
    pub fn has_room(self) -> bool {
        // SAFETY: the element's memory outlives the program's run. Volatile, because other CPUs write it.
        let open = unsafe { self.0.read_volatile() };
        open < FLOW_SHARE
    }

    /// So many more are open, or less.
    #[inline(always)]
    pub fn add(self, more: i64) {
        // SAFETY: as above; every other CPU adds atomically too.
        unsafe { add(self.0, more) };
    }
}

impl Lookups for Pod {
    #[inline(always)]
    fn port(&self, set: PortSet, port: u16) -> bool {
        let data = PortKey::new(self.record.rules, set, port);
        PORTS.get(&Key::new(PortKey::FULL, data)).is_some()
    }

    #[inline(always)]
    fn addr(&self, set: AddrSet, addr: &Addr) -> bool {
        let data = AddrKey::new(self.record.rules, set, addr);
        ADDRS.get(&Key::new(AddrKey::FULL, data)).is_some()
    }

    #[inline(always)]
    fn group(&self, set: GroupSet, gid: u32) -> bool {
        GROUPS
            .get_ptr(GroupKey::new(self.record.rules, set, gid))
            .is_some()
    }
}
