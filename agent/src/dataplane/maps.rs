//! The maps, each opened by its name in the BPF object and pinned under it.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use sidestep_ebpf_common::{
    AddrKey, FlowKey, GroupKey, LISTENER_SLOTS, ListenerKey, Origin, PodRecord, PortKey,
    ProxyState, SockState, row::RowCounts, sighting::QuietKey,
};
use sidestep_kernel::{
    maps::{MapError, PerCpuTable, SocketStorage, SocketTable, Table, Trie},
    netns::Cookie,
    object::Object,
};

/// Every pinned map.
pub(super) const NAMES: [&str; 10] = [
    "PODS",
    "PROXIES",
    "COUNTS",
    "PORTS",
    "ADDRS",
    "GROUPS",
    "SOCKS",
    "FLOWS",
    "OPEN",
    "LISTENERS",
];

/// The maps that the agent reads or writes.
pub(super) struct Maps {
    pub(super) pods: Table<u64, PodRecord>,
    pub(super) proxies: Table<u64, ProxyState>,
    pub(super) counts: PerCpuTable<u64, RowCounts>,
    pub(super) ports: Trie<PortKey>,
    pub(super) addrs: Trie<AddrKey>,
    pub(super) groups: Table<GroupKey, u32>,
    pub(super) socks: SocketStorage<SockState>,
    pub(super) flows: Table<FlowKey, Origin>,
    pub(super) open: Table<u64, i64>,
    listeners: SocketTable<ListenerKey>,
    /// Not pinned.
    pub(super) quiet: Table<QuietKey, u64>,
}

impl Maps {
    /// Takes the maps out of an object.
    pub(super) fn take(object: &mut Object) -> Result<Self, MapError> {
        Ok(Self {
            pods: object.take("PODS")?,
            proxies: object.take("PROXIES")?,
            counts: object.take("COUNTS")?,
            ports: object.take("PORTS")?,
            addrs: object.take("ADDRS")?,
            groups: object.take("GROUPS")?,
            socks: object.take("SOCKS")?,
            flows: object.take("FLOWS")?,
            open: object.take("OPEN")?,
            listeners: object.take("LISTENERS")?,
            quiet: object.take("QUIET")?,
        })
    }

    /// Deletes every rule whose number is not in `keep`.
    pub(super) fn sweep_rules(&mut self, keep: &[u32]) -> Result<(), MapError> {
        let stale = |rules: u32| !keep.contains(&rules);
        let ports: Vec<_> = self.ports.keys().flatten().collect();
        for (length, key) in ports.into_iter().filter(|(_, key)| stale(key.rules())) {
            self.ports.remove(length, key)?;
        }
        let addrs: Vec<_> = self.addrs.keys().flatten().collect();
        for (length, key) in addrs.into_iter().filter(|(_, key)| stale(key.rules())) {
            self.addrs.remove(length, key)?;
        }
        let groups: Vec<_> = self.groups.keys().flatten().collect();
        for key in groups.iter().filter(|key| stale(key.rules())) {
            self.groups.remove(key)?;
        }
        Ok(())
    }

    /// Puts a listening socket into the first free slot. It may be there already: then a second place does no harm, and
    /// both are free once it is closed.
    pub(super) fn put_listener(&mut self, pod: Cookie, socket: &OwnedFd) -> Result<(), MapError> {
        for slot in 0..LISTENER_SLOTS {
            match self.listeners.add(&ListenerKey::new(pod, slot), socket) {
                Err(error) if error.is(Errno::EXIST) => {}
                // An MPTCP listener cannot be steered to; it still shows that the proxy is there.
                Err(error) if error.is(Errno::OPNOTSUPP) => return Ok(()),
                done => return done,
            }
        }
        Ok(())
    }

    /// Empties every slot of a pod.
    pub(super) fn remove_listeners(&mut self, pod: Cookie) {
        for slot in 0..LISTENER_SLOTS {
            // A socket that is closed has left already.
            let _absent = self.listeners.remove(&ListenerKey::new(pod, slot));
        }
    }

    /// Whether a pod has a listening socket.
    pub(super) fn has_listener(&self, pod: Cookie) -> bool {
        let mut keys = self.listeners.keys().flatten();
        keys.any(|key| key.cookie() == pod)
    }
}
