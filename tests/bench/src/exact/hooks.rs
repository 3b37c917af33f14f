//! What each BPF program of the machine costs: the kernel's own statistics (`bpf_stats`, `kernel.bpf_stats_enabled`).
//!
//! In a machine whose clock counts instructions, a nanosecond of theirs is an instruction, those of reading that clock included.

use std::{collections::BTreeMap, ops::Sub, os::fd::OwnedFd};

use anyhow::Context;
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use serde::{Deserialize, Serialize};

/// How often a program ran, and what all of that took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Runs.
    pub runs: u64,
    /// Instructions of all of them.
    pub instructions: u64,
}

impl Sub for Hook {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            runs: self.runs.saturating_sub(earlier.runs),
            instructions: self.instructions.saturating_sub(earlier.instructions),
        }
    }
}

/// Counts from its making on until it is dropped; the counting costs instructions, too.
pub struct Counting {
    before: BTreeMap<String, Hook>,
    _on: OwnedFd,
}

impl Counting {
    /// Begins.
    pub fn new() -> anyhow::Result<Self> {
        let on = enable_stats(Stats::RunTime).context("BPF_ENABLE_STATS")?;
        Ok(Self {
            before: read()?,
            _on: on,
        })
    }

    /// What ran since.
    pub fn end(self) -> anyhow::Result<BTreeMap<String, Hook>> {
        let now = read()?.into_iter().map(|(name, hook)| {
            let before = self.before.get(&name).copied().unwrap_or_default();
            (name, hook - before)
        });
        Ok(now.filter(|(_, hook)| hook.runs > 0).collect())
    }
}

/// By name; programs of one name are one.
fn read() -> anyhow::Result<BTreeMap<String, Hook>> {
    let mut hooks = BTreeMap::<String, Hook>::new();
    for program in loaded_programs() {
        let program = program.context("a program of the kernel")?;
        let name = program.name_as_str().unwrap_or_default().to_owned();
        let hook = hooks.entry(name).or_default();
        hook.runs += program.run_count();
        hook.instructions += u64::try_from(program.run_time().as_nanos()).unwrap_or(u64::MAX);
    }
    Ok(hooks)
}
