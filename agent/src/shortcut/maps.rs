//! The shortcut's maps, each opened by its name in the BPF object.

use std::{collections::HashSet, path::Path, thread, time::Duration};

use sidestep_ebpf_common::{
    Addr,
    shortcut::{COUNTS, EndKey, EndRecord, EndState, Member, PodSwitch},
};
use sidestep_kernel::{
    any_map::AnyMap,
    maps::{Array, MapError, PerCpuArray, SocketStorage, SocketTable, Table},
    object::Object,
};

use super::{ShortcutError, error::file};

/// Every pinned map.
pub(super) const NAMES: [&str; 9] = [
    "MEMBERS",
    "SWITCHES",
    "PROXY_PROCESSES",
    "ADDRESSES",
    "ENDS",
    "RECEIVERS",
    "SENDERS",
    "TALLY",
    "STATES",
];

/// Sizes of the keys and values of each, bytes.
const LAYOUT: [(usize, usize); NAMES.len()] = [
    (8, size_of::<Member>()),
    (4, size_of::<PodSwitch>()),
    (4, 4),
    (size_of::<Addr>(), 8),
    (size_of::<EndKey>(), size_of::<EndRecord>()),
    (8, 4),
    (8, 4),
    (4, size_of::<[u64; COUNTS]>()),
    (4, size_of::<EndState>()),
];

/// A program that is making a socket an end has done so after this.
const SETTLE: Duration = Duration::from_millis(5);

/// Whether all of them are pinned in a folder, as this version makes them. The library would not notice.
pub(super) fn check(folder: &Path) -> Result<(), ShortcutError> {
    for (map, want) in NAMES.into_iter().zip(LAYOUT) {
        let path = folder.join(map);
        let pinned = AnyMap::open(&path).map_err(|error| file(&path, error))?;
        let found = pinned.map_or((0, 0), |map| map.sizes());
        if found != want {
            return Err(ShortcutError::Layout {
                map,
                path,
                found,
                want,
            });
        }
    }
    Ok(())
}

/// The maps that the agent reads or writes.
pub(super) struct Maps {
    pub(super) members: Table<u64, Member>,
    pub(super) switches: Array<PodSwitch>,
    pub(super) proxies: Array<u32>,
    pub(super) addresses: Table<Addr, u64>,
    pub(super) ends: Table<EndKey, EndRecord>,
    receivers: SocketTable<u64>,
    pub(super) senders: SocketTable<u64>,
    pub(super) tally: PerCpuArray<[u64; COUNTS]>,
    pub(super) mptcp_answer: Array<i64>,
    pub(super) states: SocketStorage<EndState>,
}

impl Maps {
    /// Takes the maps out of an object.
    pub(super) fn take(object: &mut Object) -> Result<Self, MapError> {
        Ok(Self {
            members: object.take("MEMBERS")?,
            switches: object.take("SWITCHES")?,
            proxies: object.take("PROXY_PROCESSES")?,
            addresses: object.take("ADDRESSES")?,
            ends: object.take("ENDS")?,
            receivers: object.take("RECEIVERS")?,
            senders: object.take("SENDERS")?,
            tally: object.take("TALLY")?,
            mptcp_answer: object.take("MPTCP_ANSWER")?,
            states: object.take("STATES")?,
        })
    }

    /// Deletes the records of sockets that are gone: those that were closed while no program looked.
    pub(super) fn sweep_ends(&mut self) -> Result<(), MapError> {
        let before: HashSet<(EndKey, u64)> = self.strangers().collect();
        if before.is_empty() {
            return Ok(());
        }
        // One of a socket that was just about to be put into the sockhashes is none.
        thread::sleep(SETTLE);
        for (key, id) in self.strangers() {
            if before.contains(&(key, id)) {
                self.ends.remove(&key)?;
            }
        }
        Ok(())
    }

    /// Records of sockets that are in no sockhash.
    fn strangers(&self) -> impl Iterator<Item = (EndKey, u64)> + use<> {
        // The records first: whoever has one by then is in a sockhash a moment later.
        let ends: Vec<_> = self.ends.iter().flatten().collect();
        let sockets = self.receivers.keys().chain(self.senders.keys());
        let sockets: HashSet<u64> = sockets.flatten().collect();
        let all = ends.into_iter().map(|(key, record)| (key, record.id));
        all.filter(move |(_, id)| !sockets.contains(id))
    }
}
