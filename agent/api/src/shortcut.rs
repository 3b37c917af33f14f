//! The shortcut, and what its self-test found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sidestep_contract::Reach;

/// What is told of the shortcut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShortcutStatus {
    /// Whether it is proven and in place.
    pub on: bool,
    /// Why it is not; absent also while the self-test has not decided yet.
    pub reason: Option<String>,
    /// How far any pod's bytes may go.
    pub reach: Reach,
    /// Why the sockets of applications keep to TCP, but for those that ask for it; absent where they need not.
    pub not_from_applications: Option<String>,
    /// Why nothing is put into the sockets of applications that ask for it; absent where it can be.
    pub not_into_applications: Option<String>,
    /// What the self-test found, check by check.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// How long it took, milliseconds.
    #[serde(default)]
    pub selftest_ms: u64,
    /// Ends of connections that are open.
    pub ends: usize,
    /// What was counted since the programs were loaded first.
    pub counts: BTreeMap<String, u64>,
}

/// What depends on a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proves {
    /// That the kernel does not crash. Nothing else is tried where it might.
    Safety,
    /// All of it.
    Shortcut,
    /// That an application notices nothing of its sockets' being ends.
    Application,
    /// That bytes may be put into applications.
    IntoApplication,
}

/// A check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// What depends on it.
    pub proves: Proves,
    /// What was wrong.
    pub failure: Option<String>,
}
