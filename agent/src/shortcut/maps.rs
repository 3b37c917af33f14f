//! The shortcut's maps, each opened by its name in the BPF object.

use std::{collections::HashSet, io, path::Path, thread, time::Duration};

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, SkStorage, SockHash},
};
use sidestep_ebpf_common::{
    Addr,
    shortcut::{EndKey, EndRecord, EndState, Member, PodSwitch},
};

use super::{ShortcutError, error::file};
use crate::sys::AnyMap;

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
    (4, 8),
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
    pub(super) members: HashMap<MapData, u64, Member>,
    pub(super) switches: Array<MapData, PodSwitch>,
    pub(super) proxies: Array<MapData, u32>,
    pub(super) addresses: HashMap<MapData, Addr, u64>,
    pub(super) ends: HashMap<MapData, EndKey, EndRecord>,
    receivers: SockHash<MapData, u64>,
    pub(super) senders: SockHash<MapData, u64>,
    pub(super) tally: PerCpuArray<MapData, u64>,
    pub(super) mptcp_answer: Array<MapData, i64>,
    pub(super) states: SkStorage<MapData, EndState>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, ShortcutError> {
        Ok(Self {
            members: open(object, "MEMBERS")?,
            switches: open(object, "SWITCHES")?,
            proxies: open(object, "PROXY_PROCESSES")?,
            addresses: open(object, "ADDRESSES")?,
            ends: open(object, "ENDS")?,
            receivers: open(object, "RECEIVERS")?,
            senders: open(object, "SENDERS")?,
            tally: open(object, "TALLY")?,
            mptcp_answer: open(object, "MPTCP_ANSWER")?,
            states: open(object, "STATES")?,
        })
    }

    /// Deletes the records of sockets that are gone: those that were closed while no program looked.
    pub(super) fn sweep_ends(&mut self) -> Result<(), ShortcutError> {
        let before: HashSet<(EndKey, u64)> = self.strangers().collect();
        if before.is_empty() {
            return Ok(());
        }
        // One of a socket that was just about to be put into the sockhashes is none.
        thread::sleep(SETTLE);
        for (key, id) in self.strangers() {
            if before.contains(&(key, id)) {
                gone(self.ends.remove(&key)).map_err(|e| error("ENDS", &e))?;
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

/// Deleting what is not there is fine.
pub(super) fn gone(answer: Result<(), MapError>) -> Result<(), MapError> {
    match answer {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(super) fn error(map: &'static str, error: &MapError) -> ShortcutError {
    ShortcutError::Map {
        map,
        // The library names the call; the kernel's answer is in the source.
        reason: match error {
            MapError::SyscallError(e) => e.io_error.to_string(),
            other => other.to_string(),
        },
    }
}

fn open<T>(object: &mut Ebpf, name: &'static str) -> Result<T, ShortcutError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = object.take_map(name).ok_or_else(|| ShortcutError::Map {
        map: name,
        reason: "not in the BPF object".to_owned(),
    })?;
    T::try_from(map).map_err(|e| error(name, &e))
}
