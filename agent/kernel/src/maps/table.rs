//! Hash maps.

use std::borrow::Borrow;

use aya::maps::{HashMap, MapData, PerCpuHashMap};

use super::{Answer as _, MapError, Plain, Typed, for_every_cpu, named};

/// `BPF_EXIST`: only what is there already.
const EXIST: u64 = 2;

/// A hash map, least recently used ones among them.
pub type Table<K, V> = Typed<HashMap<MapData, K, V>>;

impl<K: Plain, V: Plain> Typed<HashMap<MapData, K, V>> {
    /// The value of a key, if it has one.
    pub fn get(&self, key: &K) -> Result<Option<V>, MapError> {
        self.map.get(key, 0).found(self.name)
    }

    /// The value of a key that must have one.
    pub fn require(&self, key: &K) -> Result<V, MapError> {
        self.map.get(key, 0).named(self.name)
    }

    /// Gives a key this value, whatever it had.
    pub fn insert(&mut self, key: impl Borrow<K>, value: impl Borrow<V>) -> Result<(), MapError> {
        self.map.insert(key, value, 0).named(self.name)
    }

    /// Gives a key this value if it has one; whether it had.
    pub fn replace(
        &mut self,
        key: impl Borrow<K>,
        value: impl Borrow<V>,
    ) -> Result<bool, MapError> {
        let answer = self.map.insert(key, value, EXIST).found(self.name)?;
        Ok(answer.is_some())
    }

    /// Removes a key; whether it was there.
    pub fn remove(&mut self, key: &K) -> Result<bool, MapError> {
        Ok(self.map.remove(key).found(self.name)?.is_some())
    }

    /// Every key. Where entries come and go meanwhile, some may be missing or there twice.
    pub fn keys(&self) -> impl Iterator<Item = Result<K, MapError>> {
        named(self.name, self.map.keys())
    }

    /// Every key with its value, as [`Self::keys`].
    pub fn iter(&self) -> impl Iterator<Item = Result<(K, V), MapError>> {
        named(self.name, self.map.iter())
    }
}

/// A hash map with a value for each CPU.
pub type PerCpuTable<K, V> = Typed<PerCpuHashMap<MapData, K, V>>;

impl<K: Plain, V: Plain> Typed<PerCpuHashMap<MapData, K, V>> {
    /// The values of a key, if it has any.
    pub fn get(&self, key: &K) -> Result<Option<Vec<V>>, MapError> {
        let values = self.map.get(key, 0).found(self.name)?;
        Ok(values.map(|values| values.to_vec()))
    }

    /// Gives a key this value on every CPU.
    pub fn insert(&mut self, key: impl Borrow<K>, value: V) -> Result<(), MapError> {
        let values = for_every_cpu(self.name, value)?;
        self.map.insert(key, values, 0).named(self.name)
    }

    /// Removes a key; whether it was there.
    pub fn remove(&mut self, key: &K) -> Result<bool, MapError> {
        Ok(self.map.remove(key).found(self.name)?.is_some())
    }

    /// Every key, as [`Table::keys`].
    pub fn keys(&self) -> impl Iterator<Item = Result<K, MapError>> {
        named(self.name, self.map.keys())
    }
}
