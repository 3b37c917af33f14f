//! The maps of a BPF object, by type. Every error names its map. Keys and values are [`Plain`]; what the kernel does not
//! find is `None` or `false`, and no error.

mod array;
mod socket;
mod table;
mod trie;

use aya::maps::{Map, MapError as LibraryError};
use rustix::io::Errno;
use thiserror::Error;

pub use self::{
    array::{Array, PerCpuArray},
    socket::{SocketStorage, SocketTable},
    table::{PerCpuTable, Table},
    trie::Trie,
};
use crate::Plain;

/// An operation that the kernel, or the BPF library, refused.
#[derive(Debug, Error)]
#[error("map {map}: {reason}")]
pub struct MapError {
    map: &'static str,
    reason: String,
    errno: Option<Errno>,
}

impl MapError {
    /// Whether the kernel answered with this number.
    pub fn is(&self, errno: Errno) -> bool {
        self.errno == Some(errno)
    }

    pub(crate) fn new(map: &'static str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self {
            map,
            reason,
            errno: None,
        }
    }

    fn of(map: &'static str, error: &LibraryError) -> Self {
        let LibraryError::SyscallError(call) = error else {
            return Self::new(map, error.to_string());
        };
        Self {
            map,
            reason: format!("{call}: {}", call.io_error),
            errno: Errno::from_io_error(&call.io_error),
        }
    }
}

/// A map of an object, before its type is known.
pub struct Untyped {
    pub(crate) name: &'static str,
    pub(crate) map: Map,
}

/// A map of which the type is known: see [`Table`] and the others.
pub struct Typed<M> {
    name: &'static str,
    map: M,
}

impl<M> TryFrom<Untyped> for Typed<M>
where
    M: TryFrom<Map, Error = LibraryError>,
{
    type Error = MapError;

    fn try_from(Untyped { name, map }: Untyped) -> Result<Self, MapError> {
        let map = M::try_from(map).named(name)?;
        Ok(Self { name, map })
    }
}

/// Answers of the BPF library.
trait Answer<T> {
    /// Gives the error the map's name.
    fn named(self, map: &'static str) -> Result<T, MapError>;
    /// The same; what is not found is no error.
    fn found(self, map: &'static str) -> Result<Option<T>, MapError>;
}

impl<T> Answer<T> for Result<T, LibraryError> {
    fn named(self, map: &'static str) -> Result<T, MapError> {
        self.map_err(|error| MapError::of(map, &error))
    }

    fn found(self, map: &'static str) -> Result<Option<T>, MapError> {
        match self {
            Err(LibraryError::KeyNotFound | LibraryError::ElementNotFound) => Ok(None),
            other => match other.named(map) {
                Ok(value) => Ok(Some(value)),
                Err(error) if error.is(Errno::NOENT) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }
}

/// Gives every error of an iteration the map's name.
fn named<T>(
    map: &'static str,
    items: impl Iterator<Item = Result<T, LibraryError>>,
) -> impl Iterator<Item = Result<T, MapError>> {
    items.map(move |item| item.named(map))
}

/// One value for every CPU.
fn for_every_cpu<V: Plain>(
    map: &'static str,
    value: V,
) -> Result<aya::maps::PerCpuValues<V>, MapError> {
    let cpus = aya::util::nr_cpus().map_err(|(file, error)| {
        MapError::new(map, format!("the number of CPUs ({file}): {error}"))
    })?;
    let values = aya::maps::PerCpuValues::try_from(vec![value; cpus]);
    values.map_err(|error| MapError::new(map, error.to_string()))
}
