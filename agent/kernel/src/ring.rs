//! A ring buffer that programs write to, awaited.

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

use crate::maps::{MapError, Untyped};

/// What programs tell, as long as somebody reads.
pub struct Ring(AsyncFd<RingBuf<MapData>>);

impl Ring {
    /// Waits for the next message that `parse` understands.
    pub async fn next<T>(&mut self, parse: impl Fn(&[u8]) -> Option<T>) -> io::Result<T> {
        loop {
            let mut ready = self.0.readable_mut().await?;
            while let Some(item) = ready.get_inner_mut().next() {
                if let Some(message) = parse(&item) {
                    return Ok(message);
                }
            }
            ready.clear_ready();
        }
    }
}

/// To be called in a runtime.
impl TryFrom<Untyped> for Ring {
    type Error = MapError;

    fn try_from(Untyped { name, map }: Untyped) -> Result<Self, MapError> {
        let ring =
            RingBuf::try_from(map).map_err(|error| MapError::new(name, error.to_string()))?;
        // SAFETY: the ring buffer owns its descriptor, tells the same one each time, and closes it when it is dropped.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = ring.map_err(|error| MapError::new(name, error.to_string()))?;
        Ok(Self(ring))
    }
}
