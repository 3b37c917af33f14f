//! The time, read in one place and handed on as a value: what decides never reads a clock.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// One reading of the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For what is due.
    pub at: Instant,
    /// The same moment in nanoseconds, as the programs stamp sightings.
    pub kernel: u64,
}

impl Now {
    /// Reads the clock.
    pub fn read() -> Self {
        Self {
            at: Instant::now(),
            kernel: monotonic(),
        }
    }

    /// The time since a program's stamp.
    pub const fn since(self, stamp: u64) -> Duration {
        Duration::from_nanos(self.kernel.saturating_sub(stamp))
    }
}

/// The monotonic clock in nanoseconds.
pub fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}
