//! The shortcut's maps, each opened by its name in the BPF object.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    thread,
    time::Duration,
};

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
pub(super) const NAMES: [&str; 11] = [
    "MEMBERS",
    "SWITCHES",
    "PROXY_PROCESSES",
    "ADDRESSES",
    "ENDS",
    "ENDS_OF",
    "ENDS_SWEPT",
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
    (4, 8),
    (4, 8),
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
    ends_of: Array<i64>,
    ends_swept: Array<i64>,
    manners_of: Array<i64>,
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
            ends_of: object.take("ENDS_OF")?,
            ends_swept: object.take("ENDS_SWEPT")?,
            manners_of: object.take("MANNERS_OF")?,
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

    /// A pod comes to this place: what the one before it has left there is not charged to it. If it had another place, what is
    /// known of its programs stays known; its ends stay there, and go by TCP.
    pub(super) fn begin_shares(&mut self, place: u32, before: Option<u32>) -> Result<(), MapError> {
        self.ends_swept.set(place, self.ends_of.get(place)?)?;
        let known = before.map_or(Ok(0), |before| self.manners_of.get(before))?;
        self.manners_of.set(place, known)
    }

    /// Corrects what these pods, by their places, are said to have of the records: some went without a program. Where connections
    /// come or go meanwhile it is a few off.
    pub(super) fn recount_ends(&mut self, places: &[u32]) -> Result<(), MapError> {
        // By key: whoever walks a map that changes may see one twice.
        let ends = self.ends.iter().flatten();
        let ends: HashMap<EndKey, u32> = ends.map(|(key, record)| (key, record.place)).collect();
        let mut there: HashMap<u32, i64> = HashMap::new();
        for place in ends.values() {
            *there.entry(*place).or_default() += 1;
        }
        for place in places {
            let there = there.get(place).copied().unwrap_or_default();
            let swept = self.ends_of.get(*place)? - there;
            self.ends_swept.set(*place, swept)?;
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
