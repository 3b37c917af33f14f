//! What the programs tell the agent: read from a ring buffer, as long as somebody reads.

use std::{
    fs::File,
    io,
    sync::{Arc, OnceLock},
};

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray, RingBuf},
    programs::RawTracePoint,
};
use sidestep_ebpf_common::Sighting;
use tokio::io::{Interest, unix::AsyncFd};

use super::{DataplaneError, maps};
use crate::{netns::Namespace, sys};

const EXEC: &str = "on_exec";

/// Namespaces that programs came upon. Hints: where nobody reads for a while, some are lost.
pub struct Sightings {
    ring: AsyncFd<RingBuf<MapData>>,
    missed: Arc<PerCpuArray<MapData, u64>>,
    without_execs: Option<String>,
}

impl Sightings {
    /// Takes them out of a loaded object. To be called in a runtime.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, DataplaneError> {
        let without_execs = watch_execs(object).err().map(|error| error.to_string());
        let ring = maps::open(object, "SIGHTINGS")?;
        // SAFETY: the ring buffer owns its descriptor, tells the same one each time, and closes it when it is dropped.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let ring = ring.map_err(|error| DataplaneError::Map {
            map: "SIGHTINGS",
            reason: error.to_string(),
        })?;
        Ok(Self {
            ring,
            missed: Arc::new(maps::open(object, "MISSED")?),
            without_execs,
        })
    }

    /// Counts those that were lost before anybody read them.
    pub fn missed(&self) -> Missed {
        Missed(Arc::clone(&self.missed))
    }

    /// Why starts of programs are not among them, if that is so. Pods are then noticed when they use their network.
    pub fn without_execs(&self) -> Option<&str> {
        self.without_execs.as_deref()
    }

    /// Waits for the next.
    pub async fn next(&mut self) -> io::Result<Sighting> {
        loop {
            let mut ready = self.ring.readable_mut().await?;
            while let Some(item) = ready.get_inner_mut().next() {
                if let Some(sighting) = parse(&item) {
                    return Ok(sighting);
                }
            }
            ready.clear_ready();
        }
    }
}

/// How many sightings did not fit into the ring buffer.
#[derive(Clone)]
pub struct Missed(Arc<PerCpuArray<MapData, u64>>);

impl Missed {
    /// Since the programs were loaded.
    pub fn count(&self) -> u64 {
        // What cannot be read is not known to have been lost; the next look reads again.
        let counts = self.0.get(&0, 0);
        counts.map_or(0, |counts| counts.iter().sum())
    }
}

/// The layout of [`Sighting`].
fn parse(bytes: &[u8]) -> Option<Sighting> {
    let long = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some(Sighting {
        cookie: long(0)?,
        cgroup: long(8)?,
        at: long(16)?,
        pid: word(24)?,
        seen: word(28)?,
    })
}

/// Starts of programs are seen by a tracepoint of the whole node. It ends with the object.
fn watch_execs(object: &mut Ebpf) -> anyhow::Result<()> {
    let program = object
        .program_mut(EXEC)
        .ok_or_else(|| anyhow::anyhow!("{EXEC} is not in the object"))?;
    let program: &mut RawTracePoint = program.try_into()?;
    program.load()?;
    program.attach("sched_process_exec")?;
    Ok(())
}

/// The cookie of the host's own network namespace, whichever the agent is in.
pub(super) fn host_cookie() -> Option<u64> {
    static HOST: OnceLock<Option<u64>> = OnceLock::new();
    *HOST.get_or_init(|| {
        let here = File::open("/proc/1/ns/net").ok()?;
        Namespace::cookie_of(&here)
            .or_else(|_| sys::netns_cookie())
            .ok()
    })
}
