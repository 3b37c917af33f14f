//! What the programs tell the agent: read from a ring buffer, as long as somebody reads.

use std::{io, sync::Arc};

use sidestep_ebpf_common::Sighting;
use sidestep_kernel::{
    maps::{MapError, PerCpuArray},
    object::Object,
    ring::Ring,
};

const EXEC: &str = "on_exec";

/// Namespaces that programs came upon. Hints: where nobody reads for a while, some are lost.
pub struct Sightings {
    ring: Ring,
    missed: Arc<PerCpuArray>,
    without_execs: Option<String>,
}

impl Sightings {
    /// Takes them out of an object. To be called in a runtime.
    pub(super) fn take(object: &mut Object) -> Result<Self, MapError> {
        // It ends with the object.
        let execs = object.attach_to_tracepoint(EXEC, "sched_process_exec");
        Ok(Self {
            ring: object.take("SIGHTINGS")?,
            missed: Arc::new(object.take("MISSED")?),
            without_execs: execs.err().map(|error| error.to_string()),
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
        self.ring.next(parse).await
    }
}

/// How many sightings did not fit into the ring buffer.
#[derive(Clone)]
pub struct Missed(Arc<PerCpuArray>);

impl Missed {
    /// Since the programs were loaded.
    pub fn count(&self) -> u64 {
        // What cannot be read is not known to have been lost; the next look reads again.
        self.0.sum(0).unwrap_or(0)
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
