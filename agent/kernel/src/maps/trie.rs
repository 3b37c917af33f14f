//! Tries of prefixes.

use aya::maps::{LpmTrie, MapData, lpm_trie::Key};

use super::{Answer as _, MapError, Plain, Typed, named};

/// A trie that holds prefixes. Its values mean nothing: a match is membership.
pub type Trie<K> = Typed<LpmTrie<MapData, K, u32>>;

impl<K: Plain> Typed<LpmTrie<MapData, K, u32>> {
    /// Adds the first `length` bits of a key.
    pub fn insert(&mut self, length: u32, key: K) -> Result<(), MapError> {
        let key = Key::new(length, key);
        self.map.insert(&key, 1, 0).named(self.name)
    }

    /// Removes the first `length` bits of a key; whether they were there.
    pub fn remove(&mut self, length: u32, key: K) -> Result<bool, MapError> {
        let answer = self.map.remove(&Key::new(length, key));
        Ok(answer.found(self.name)?.is_some())
    }

    /// Every prefix: its length in bits, and its key.
    pub fn keys(&self) -> impl Iterator<Item = Result<(u32, K), MapError>> {
        let keys = named(self.name, self.map.keys());
        keys.map(|key| key.map(|key| (key.prefix_len(), key.data())))
    }
}
