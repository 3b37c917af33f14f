//! The shortcut's maps, each opened by its name in the BPF object.

use std::io;

use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, SkStorage, SockHash},
};
use sidestep_ebpf_common::{
    Addr,
    shortcut::{EndKey, EndRecord, EndState, Member, PodSwitch},
};

use super::ShortcutError;

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

/// The maps that the agent reads or writes.
pub(super) struct Maps {
    pub(super) members: HashMap<MapData, u64, Member>,
    pub(super) switches: Array<MapData, PodSwitch>,
    pub(super) proxies: Array<MapData, u32>,
    pub(super) addresses: HashMap<MapData, Addr, u64>,
    pub(super) ends: HashMap<MapData, EndKey, EndRecord>,
    pub(super) senders: SockHash<MapData, u64>,
    pub(super) tally: PerCpuArray<MapData, u64>,
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
            senders: open(object, "SENDERS")?,
            tally: open(object, "TALLY")?,
            states: open(object, "STATES")?,
        })
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
