//! The admission server as the chart installs it, with its ServiceAccount's rights, against a real API server.

mod certificates;
mod check;
mod cluster;
mod duties;
mod kinds;
mod leader;
mod monitoring;
mod pods;
mod replica;
mod second;

use std::time::Duration;

use sidestep_kit::process::eventually;

/// How long anything may take that takes a moment.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(eventually(PATIENCE, condition), "never: {what}");
}
