//! The maps, each opened by its name in the BPF object and pinned under it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    path::Path,
};

use aya::{
    Ebpf,
    maps::{
        HashMap, IterableMap, LpmTrie, Map, MapData, MapError, PerCpuHashMap, PerCpuValues,
        SkStorage, SockHash, lpm_trie::Key,
    },
    util::nr_cpus,
};
use sidestep_ebpf_common::{
    AddrKey, FlowKey, GroupKey, LISTENER_SLOTS, ListenerKey, Origin, PodRecord, PortKey,
    ProxyState, Row, SockState, row::RowCounts, sighting::QuietKey,
};

use super::{DataplaneError, Repairs};
use crate::{link::pin_error, netns::Cookie, storage};

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
    pub(super) pods: HashMap<MapData, u64, PodRecord>,
    pub(super) proxies: HashMap<MapData, u64, ProxyState>,
    pub(super) counts: PerCpuHashMap<MapData, u64, RowCounts>,
    pub(super) ports: LpmTrie<MapData, PortKey, u32>,
    pub(super) addrs: LpmTrie<MapData, AddrKey, u32>,
    pub(super) groups: HashMap<MapData, GroupKey, u32>,
    pub(super) flows: HashMap<MapData, FlowKey, Origin>,
    pub(super) open: HashMap<MapData, u64, i64>,
    pub(super) listeners: SockHash<MapData, ListenerKey>,
    /// Not pinned.
    pub(super) quiet: HashMap<MapData, QuietKey, u64>,
    /// Written by programs only; kept so that its pin can be restored.
    pub(super) socks: Map,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, DataplaneError> {
        Ok(Self {
            pods: open(object, "PODS")?,
            proxies: open(object, "PROXIES")?,
            counts: open(object, "COUNTS")?,
            ports: open(object, "PORTS")?,
            addrs: open(object, "ADDRS")?,
            groups: open(object, "GROUPS")?,
            flows: open(object, "FLOWS")?,
            open: open(object, "OPEN")?,
            listeners: open(object, "LISTENERS")?,
            quiet: open(object, "QUIET")?,
            socks: object.take_map("SOCKS").ok_or_else(|| missing("SOCKS"))?,
        })
    }

    /// Whether the kernel can keep anything with a socket.
    pub(super) fn check_storage(&mut self) -> Result<(), DataplaneError> {
        let socks = SkStorage::try_from(&mut self.socks).map_err(|e| error("SOCKS", &e))?;
        Ok(storage::check(socks, SockState::default())?)
    }

    /// Every map by its name.
    fn all(&self) -> Result<[(&'static str, &MapData); NAMES.len()], DataplaneError> {
        let Map::SkStorage(socks) = &self.socks else {
            return Err(missing("SOCKS"));
        };
        Ok([
            ("PODS", self.pods.map()),
            ("PROXIES", self.proxies.map()),
            ("COUNTS", self.counts.map()),
            ("PORTS", self.ports.map()),
            ("ADDRS", self.addrs.map()),
            ("GROUPS", self.groups.map()),
            ("SOCKS", socks),
            ("FLOWS", self.flows.map()),
            ("OPEN", self.open.map()),
            ("LISTENERS", self.listeners.map()),
        ])
    }

    /// Descriptors of every map.
    pub(super) fn descriptors(&self) -> Result<Vec<(&'static str, RawFd)>, DataplaneError> {
        let fd = |map: &MapData| map.fd().as_fd().as_raw_fd();
        Ok(self.all()?.map(|(name, map)| (name, fd(map))).to_vec())
    }

    /// Restores pins that somebody removed, as far as it can.
    pub(super) fn repin(&self, folder: &Path, done: &mut Repairs) {
        match self.all() {
            Err(error) => done.errors.push(error),
            Ok(all) => {
                for (name, map) in all {
                    match repin(name, map, &folder.join(name)) {
                        Ok(true) => done.restored.push(format!("pin of map {name}")),
                        Ok(false) => {}
                        Err(error) => done.errors.push(error),
                    }
                }
            }
        }
    }

    /// Deletes every rule whose number is not in `keep`.
    pub(super) fn sweep_rules(&mut self, keep: &[u32]) -> Result<(), DataplaneError> {
        let stale = |rules: u32| !keep.contains(&rules);
        let ports: Vec<_> = self.ports.keys().flatten().collect();
        for key in ports.iter().filter(|key| stale(key.data().rules())) {
            gone(self.ports.remove(key)).map_err(|e| error("PORTS", &e))?;
        }
        let addrs: Vec<_> = self.addrs.keys().flatten().collect();
        for key in addrs.iter().filter(|key| stale(key.data().rules())) {
            gone(self.addrs.remove(key)).map_err(|e| error("ADDRS", &e))?;
        }
        let groups: Vec<_> = self.groups.keys().flatten().collect();
        for key in groups.iter().filter(|key| stale(key.rules())) {
            gone(self.groups.remove(key)).map_err(|e| error("GROUPS", &e))?;
        }
        Ok(())
    }
}

/// Restores a pin if somebody removed it; whether that was so.
fn repin(name: &'static str, map: &MapData, path: &Path) -> Result<bool, DataplaneError> {
    if path.try_exists().map_err(|e| pin_error(path, e))? {
        return Ok(false);
    }
    map.pin(path).map_err(|e| error(name, &e))?;
    Ok(true)
}

/// A trie key.
pub(super) fn prefix<K: aya::Pod>(prefix: &crate::rules::Prefix<K>) -> Key<K> {
    Key::new(prefix.length, prefix.key)
}

/// Deleting what is not there is fine.
pub(super) fn gone(answer: Result<(), MapError>) -> Result<(), MapError> {
    match answer {
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Finding nothing is an answer; everything else that goes wrong is none.
pub(super) fn present<T>(answer: Result<T, MapError>) -> Result<Option<T>, MapError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(super) fn error(map: &'static str, error: &dyn std::error::Error) -> DataplaneError {
    // The library names the call; the kernel's answer is in the source.
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        reason = format!("{reason}: {e}");
        cause = e.source();
    }
    DataplaneError::Map { map, reason }
}

fn missing(map: &'static str) -> DataplaneError {
    DataplaneError::Map {
        map,
        reason: "not in the BPF object".to_owned(),
    }
}

pub(super) fn open<T>(object: &mut Ebpf, name: &'static str) -> Result<T, DataplaneError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = object.take_map(name).ok_or_else(|| missing(name))?;
    T::try_from(map).map_err(|e| error(name, &e))
}

/// Counters at zero, for every CPU.
pub(super) fn zero_counts() -> Result<PerCpuValues<RowCounts>, io::Error> {
    let cpus = nr_cpus().map_err(|(_, e)| e)?;
    PerCpuValues::try_from(vec![RowCounts([0; Row::ALL.len()]); cpus])
}

/// Puts a listening socket into the first free slot. It may be there already: then a second place does
/// no harm, and both are free once it is closed.
pub(super) fn put_listener(
    listeners: &mut SockHash<MapData, ListenerKey>,
    pod: Cookie,
    socket: &OwnedFd,
) -> Result<(), DataplaneError> {
    const NOEXIST: u64 = 1;
    for slot in 0..LISTENER_SLOTS {
        match listeners.insert(ListenerKey::new(pod, slot), socket.as_raw_fd(), NOEXIST) {
            Ok(()) => return Ok(()),
            Err(MapError::SyscallError(e)) if e.io_error.kind() == io::ErrorKind::AlreadyExists => {
            }
            // An MPTCP listener cannot be steered to; it still shows that the proxy is there.
            Err(MapError::SyscallError(e))
                if e.io_error.raw_os_error() == Some(libc::EOPNOTSUPP) =>
            {
                return Ok(());
            }
            Err(e) => return Err(error("LISTENERS", &e)),
        }
    }
    Ok(())
}
