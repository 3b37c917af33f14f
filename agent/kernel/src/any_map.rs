//! A pinned BPF map of whatever layout: an earlier version's, which no type of this one describes.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use crate::{
    fdinfo::FdInfo,
    sys::{bpf, obj_get, raw},
};

const BPF_MAP_LOOKUP_ELEM: i32 = 1;
const BPF_MAP_UPDATE_ELEM: i32 = 2;
const BPF_MAP_DELETE_ELEM: i32 = 3;
const BPF_MAP_GET_NEXT_KEY: i32 = 4;

/// Values of these kinds are as large as the map says; of others (per CPU) they are not, and are never touched here.
const PLAIN: [u32; 4] = [1, 2, 9, 18]; // hash, array, LRU hash, sockhash

/// A map, and what the kernel says of it.
#[derive(Debug)]
pub struct AnyMap {
    fd: OwnedFd,
    kind: u32,
    key: usize,
    value: usize,
    entries: u32,
}

#[repr(C)]
struct Attr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value_or_next: u64,
    flags: u64,
}

impl AnyMap {
    /// Opens what is pinned there; `None` where that is no map.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let fd = obj_get(path)?;
        let info = FdInfo::read(&fd)?;
        let field = |name| info.number(name);
        let size = |name| field(name).and_then(|size| size.try_into().ok());
        let map = || {
            Some((
                field("map_type:")?,
                size("key_size:")?,
                size("value_size:")?,
                field("max_entries:")?,
            ))
        };
        Ok(map().map(|(kind, key, value, entries)| Self {
            fd,
            kind,
            key,
            value,
            entries,
        }))
    }

    /// Sizes of keys and values, bytes.
    pub const fn sizes(&self) -> (usize, usize) {
        (self.key, self.value)
    }

    /// Every key. Where entries come and go meanwhile, some may be missing or there twice.
    pub fn keys(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        // What is being changed all the time may lead round in circles.
        let most = usize::try_from(self.entries).map_or(usize::MAX, |entries| entries * 2);
        while keys.len() < most {
            let mut next = vec![0; self.key];
            let from = keys.last().map_or(0, |key| key.as_ptr() as u64);
            match self.call(BPF_MAP_GET_NEXT_KEY, from, next.as_mut_ptr() as u64) {
                Ok(()) => keys.push(next),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        Ok(keys)
    }

    /// The value of a key, or nothing.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.check(key)?;
        let mut value = vec![0; self.value];
        let (at, to) = (key.as_ptr() as u64, value.as_mut_ptr() as u64);
        match self.call(BPF_MAP_LOOKUP_ELEM, at, to) {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes every element of an array zero.
    pub fn zero(&self) -> io::Result<()> {
        let value = vec![0_u8; self.value];
        for index in 0..self.entries {
            let key = index.to_ne_bytes();
            self.check(&key)?;
            let (at, from) = (key.as_ptr() as u64, value.as_ptr() as u64);
            self.call(BPF_MAP_UPDATE_ELEM, at, from)?;
        }
        Ok(())
    }

    /// Removes every entry.
    pub fn clear(&self) -> io::Result<()> {
        for key in self.keys()? {
            self.check(&key)?;
            match self.call(BPF_MAP_DELETE_ELEM, key.as_ptr() as u64, 0) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// The kernel reads and writes as many bytes as the map says.
    fn check(&self, key: &[u8]) -> io::Result<()> {
        if key.len() == self.key && PLAIN.contains(&self.kind) {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::InvalidInput))
        }
    }

    fn call(&self, command: i32, key: u64, value_or_next: u64) -> io::Result<()> {
        let mut attr = Attr {
            map_fd: raw(&self.fd),
            padding: 0,
            key,
            value_or_next,
            flags: 0,
        };
        bpf(command, &mut attr).map(drop)
    }
}

impl AsFd for AnyMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
