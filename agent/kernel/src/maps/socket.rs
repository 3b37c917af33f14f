//! Maps of sockets. A socket leaves them by itself when it is closed.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::maps::{MapData, SkStorage, SockHash};

use super::{Answer as _, MapError, Plain, Typed, named};
use crate::{
    link::LinkError,
    sys::{self, AttachType},
};

/// `BPF_NOEXIST`: only where nothing is yet.
const NOEXIST: u64 = 1;

/// A hash map of sockets (`BPF_MAP_TYPE_SOCKHASH`).
pub type SocketTable<K> = Typed<SockHash<MapData, K>>;

impl<K: Plain> Typed<SockHash<MapData, K>> {
    /// Puts a socket under a key that has none. The kernel answers `EXIST` where there is one, and `OPNOTSUPP` where it
    /// takes no socket of this kind.
    pub fn add(&mut self, key: &K, socket: &impl AsFd) -> Result<(), MapError> {
        let socket = socket.as_fd().as_raw_fd();
        self.map.insert(key, socket, NOEXIST).named(self.name)
    }

    /// Removes a socket; whether it was there.
    pub fn remove(&mut self, key: &K) -> Result<bool, MapError> {
        Ok(self.map.remove(key).found(self.name)?.is_some())
    }

    /// Every key. Where sockets come and go meanwhile, some may be missing or there twice.
    pub fn keys(&self) -> impl Iterator<Item = Result<K, MapError>> {
        named(self.name, self.map.keys())
    }

    /// Lets an `sk_msg` program decide every message of the sockets in it, in place of the program that did before. It
    /// stays with the map.
    pub fn decide_messages(&self, program: BorrowedFd<'_>) -> Result<(), LinkError> {
        let attached = sys::map_attach(program, self.map.fd(), AttachType::SkMsgVerdict);
        attached.map_err(|error| LinkError::Attach {
            hook: "sk_msg",
            error,
        })
    }
}

/// What is kept with sockets (`BPF_MAP_TYPE_SK_STORAGE`).
pub type SocketStorage<V> = Typed<SkStorage<MapData, V>>;

impl<V: Plain> Typed<SkStorage<MapData, V>> {
    /// Keeps this value with a socket, whatever was kept before.
    pub fn insert(&mut self, socket: &impl AsFd, value: V) -> Result<(), MapError> {
        let socket = socket.as_fd().as_raw_fd();
        self.map.insert(&socket, value, 0).named(self.name)
    }
}
