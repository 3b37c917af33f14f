//! Arrays. Every element is always there.

use aya::maps::{Array as Elements, MapData, PerCpuArray as PerCpuElements};

use super::{Answer as _, MapError, Plain, Typed};

/// An array.
pub type Array<V> = Typed<Elements<MapData, V>>;

impl<V: Plain> Typed<Elements<MapData, V>> {
    /// An element.
    pub fn get(&self, index: u32) -> Result<V, MapError> {
        self.map.get(&index, 0).named(self.name)
    }

    /// Gives an element this value.
    pub fn set(&mut self, index: u32, value: V) -> Result<(), MapError> {
        self.map.set(index, value, 0).named(self.name)
    }
}

/// An array of counters, or of arrays of counters, each with a value for each CPU.
pub type PerCpuArray<V = u64> = Typed<PerCpuElements<MapData, V>>;

impl<const N: usize> Typed<PerCpuElements<MapData, [u64; N]>> {
    /// What all CPUs counted together.
    pub fn sums(&self, index: u32) -> Result<[u64; N], MapError> {
        let values = self.map.get(&index, 0).named(self.name)?;
        Ok(std::array::from_fn(|at| {
            values.iter().map(|value| value[at]).sum()
        }))
    }
}

impl Typed<PerCpuElements<MapData, u64>> {
    /// What all CPUs counted together.
    pub fn sum(&self, index: u32) -> Result<u64, MapError> {
        let values = self.map.get(&index, 0).named(self.name)?;
        Ok(values.iter().sum())
    }
}
