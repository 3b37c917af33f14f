//! What is used of an object: how long its programs ran, and how much its maps can hold.

use std::time::Duration;

use crate::{fdinfo::FdInfo, object::Object};

/// What the kernel counted of a program since it was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its name in the object.
    pub program: String,
    /// The time that it ran.
    pub time: Duration,
    /// How often it ran.
    pub runs: u64,
}

impl Object {
    /// What was counted of its loaded programs. Linux counts while `kernel.bpf_stats_enabled` is 1; a program of which
    /// nothing was counted is left out.
    pub fn usage(&self) -> Vec<Usage> {
        let programs = self.ebpf.programs().filter_map(|(name, program)| {
            let info = program.info().ok()?;
            Some(Usage {
                program: name.to_owned(),
                time: info.run_time(),
                runs: info.run_count(),
            })
        });
        programs.filter(|usage| usage.runs > 0).collect()
    }

    /// How many entries one of its pinned maps can hold.
    pub fn capacity(&self, map: &str) -> Option<u32> {
        let map = self.pinned.iter().find(|pinned| pinned.name == map)?;
        FdInfo::read(&map.fd).ok()?.number("max_entries:")
    }
}
