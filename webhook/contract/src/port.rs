//! Port ranges.

use std::fmt;
use std::num::NonZeroU16;

use serde::{Serialize, Serializer};
use thiserror::Error;

/// An inclusive range of ports, never empty and never with port 0 in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct PortRange {
    /// The lowest port of the range.
    pub first: u16,
    /// The highest port of the range.
    pub last: u16,
}

/// Why two numbers are no port range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PortRangeError {
    /// Port 0 cannot be connected to.
    #[error("port 0 is not a port")]
    Zero,
    /// The range would be empty.
    #[error("the range {first}:{last} ends before it starts")]
    Backwards {
        /// The first number.
        first: u16,
        /// The second number, smaller than the first.
        last: u16,
    },
}

impl PortRange {
    /// The ports from `first` to `last`, both included.
    pub const fn new(first: u16, last: u16) -> Result<Self, PortRangeError> {
        if first == 0 || last == 0 {
            Err(PortRangeError::Zero)
        } else if first > last {
            Err(PortRangeError::Backwards { first, last })
        } else {
            Ok(Self { first, last })
        }
    }

    /// The range that holds one port only.
    pub const fn single(port: NonZeroU16) -> Self {
        Self {
            first: port.get(),
            last: port.get(),
        }
    }

    /// Whether `port` is in the range.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl From<NonZeroU16> for PortRange {
    fn from(port: NonZeroU16) -> Self {
        Self::single(port)
    }
}

/// As Istio and iptables write it: `8080` or `8000:9000`.
impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}:{}", self.first, self.last)
        }
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
