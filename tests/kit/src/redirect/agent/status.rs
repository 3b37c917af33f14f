//! What the agent says over its socket, as these tests read it.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What the agent says of itself.
#[derive(Debug, Clone, Deserialize)]
pub struct Status {
    /// Every program is attached.
    pub ready: bool,
    /// The pods it knows.
    pub pods: Vec<PodStatus>,
    /// How many namespaces depend on which layout of the maps.
    pub layouts: BTreeMap<String, usize>,
    /// The shortcut.
    pub shortcut: ShortcutStatus,
    /// Pod files that cannot be used.
    pub errors: Vec<String>,
    /// What it had to restore.
    pub repairs: Vec<String>,
}

/// What the agent says of the shortcut.
#[derive(Debug, Clone, Deserialize)]
pub struct ShortcutStatus {
    /// Whether it is proven and in place.
    pub on: bool,
    /// Why it is not.
    pub reason: Option<String>,
    /// Why applications' sockets keep to TCP, but for those that ask for it.
    pub not_from_applications: Option<String>,
    /// Ends of connections that are open.
    pub ends: u64,
    /// What was counted, by name.
    pub counts: BTreeMap<String, u64>,
}

/// What the agent says of a pod.
#[derive(Debug, Clone, Deserialize)]
pub struct PodStatus {
    /// The Pod's name.
    pub name: String,
    /// Its network namespace's cookie, once it is armed.
    pub cookie: Option<u64>,
    /// How far it is.
    pub state: PodState,
    /// Why it is not further.
    pub reason: Option<String>,
    /// How long it took to program, in microseconds.
    pub programmed_us: Option<u64>,
    /// From its first process in its namespace to its record, in microseconds; where nobody saw that process, nothing.
    pub reaction_us: Option<u64>,
    /// How many connections each row of the specification decided.
    pub rows: BTreeMap<String, u64>,
    /// Captured connections that are open.
    pub flows: u64,
}

/// How far a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PodState {
    /// Its proxy listens, its connections are redirected.
    Active,
    /// Programmed; nothing is redirected before its proxy listens.
    Armed,
    /// Waits for something, which the reason names.
    Pending,
    /// Captured by the programs of another version.
    Kept,
    /// Left to Istio.
    Left,
    /// All of it has ended.
    Ended,
}

impl PodState {
    /// Programmed, whether or not the proxy listens already.
    pub fn is_programmed(self) -> bool {
        matches!(self, Self::Armed | Self::Active)
    }
}
