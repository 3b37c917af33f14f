//! What must hold for any input, and where fuzzing starts from.
//!
//! Each check takes bytes and panics where something is wrong; the targets in `targets/` feed them from libFuzzer, the
//! tests from what was ever found (`regressions/`) and from the seeds.

#![forbid(unsafe_code)]

pub mod file;
pub mod mutate;
pub mod policy;
pub mod review;
pub mod seeds;

/// Panics where something is wrong with what it makes of these bytes.
pub type Check = fn(&[u8]);

/// What is checked, by the name of its target.
pub const CHECKS: [(&str, Check); 3] = [
    ("review", review::check),
    ("policy", policy::check),
    ("file", file::check),
];
