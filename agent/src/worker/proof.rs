//! That the programs act is proven at the start, and again from time to time: what others attach later may undo what ours do.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{dataplane::Dataplane, probe};

/// Between proofs. Each holds up the agent's thread for a fraction of a second.
const INTERVAL: Duration = Duration::from_mins(1);
/// The same while they fail. One that fails may take seconds, in which no pod is armed.
const AFTER_FAILURE: Duration = Duration::from_secs(15);

/// What is known of it.
pub(crate) struct Proof {
    unproven: Option<String>,
    next: Instant,
}

impl Proof {
    /// It was just given.
    pub(crate) fn given() -> Self {
        Self {
            unproven: None,
            next: Instant::now() + INTERVAL,
        }
    }

    /// Tries the programs if it is time, or must be done `again` now, and says whether they `acted`. The answer is what they do
    /// not do.
    pub(crate) fn renew(
        &mut self,
        dataplane: &mut impl Dataplane,
        cgroup: &Path,
        again: bool,
        acted: impl FnOnce(bool),
    ) -> Option<&str> {
        if again || Instant::now() >= self.next {
            // A machine that has no time for anything fails it, too, for a moment.
            let done = prove(dataplane, cgroup).or_else(|error| {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "a proof failed; trying once more"
                );
                prove(dataplane, cgroup)
            });
            acted(done.is_ok());
            self.note(done.err().map(|error| format!("{error:#}")));
        }
        self.unproven.as_deref()
    }

    fn note(&mut self, why: Option<String>) {
        match (&self.unproven, &why) {
            (Some(_), None) => tracing::info!("the proof succeeds again: the programs act"),
            (before, Some(error)) if before.as_ref() != Some(error) => {
                tracing::error!(
                    error,
                    "the proof failed: the programs do not act; will retry"
                );
            }
            _ => {}
        }
        let wait = if why.is_some() {
            AFTER_FAILURE
        } else {
            INTERVAL
        };
        self.next = Instant::now() + wait;
        self.unproven = why;
    }
}

/// Proves it.
pub(crate) fn prove(dataplane: &mut impl Dataplane, cgroup: &Path) -> anyhow::Result<()> {
    probe::run(dataplane, cgroup).with_context(|| {
        format!(
            "programs are attached to {}, but do not act",
            cgroup.display()
        )
    })
}
