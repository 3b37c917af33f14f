//! The same without noise: in an emulated machine that counts instructions, `make bench-exact`.
//!
//! `sidestep-exact` starts such a machine for each kernel (`tests/qemu/run.sh --count`) and itself in it, which is [`inside`]: it
//! measures each [`Setting`] and [`Case`], passes a [mark](mark::pass) before and after, and prints a [`Sample`]. Outside, the
//! instructions between the marks are added, of programs and of the kernel.

mod hooks;
mod inside;
mod kept;
mod machine;
pub mod mark;
mod profile;
mod report;

use std::{collections::BTreeMap, ops::Sub};

use serde::{Deserialize, Serialize};

pub use hooks::Hook;
pub use inside::inside;
pub use kept::Kept;
pub use machine::Plan;
pub use profile::Profiles;
pub use report::Report;

use super::{Case, Setting};

/// What one setting did under one kind of traffic.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// The way to redirect.
    pub setting: Setting,
    /// The traffic.
    pub case: Case,
    /// Requests between the marks.
    pub requests: u64,
    /// Requests while each BPF program was counted, afterwards.
    pub requests_counted: u64,
    /// What each BPF program did meanwhile, by its name in the kernel.
    pub hooks: BTreeMap<String, Hook>,
}

/// Instructions so far, or between two marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instructions {
    /// Of programs.
    pub programs: u64,
    /// Of the kernel.
    pub kernel: u64,
}

impl Sub for Instructions {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            programs: self.programs - earlier.programs,
            kernel: self.kernel - earlier.kernel,
        }
    }
}

/// A sample, and the instructions between its marks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Measured {
    /// What was measured.
    #[serde(flatten)]
    pub sample: Sample,
    /// Of all its requests.
    pub instructions: Instructions,
}

impl Measured {
    /// Instructions of programs for a request.
    pub fn programs(&self) -> f64 {
        each(self.instructions.programs, self.sample.requests)
    }

    /// Instructions of the kernel for a request.
    pub fn kernel(&self) -> f64 {
        each(self.instructions.kernel, self.sample.requests)
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn each(count: u64, requests: u64) -> f64 {
    count as f64 / requests as f64
}
