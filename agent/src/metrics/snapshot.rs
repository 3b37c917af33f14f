//! What is read when somebody asks for metrics, by the thread that knows it.

use std::collections::BTreeMap;

use sidestep_ebpf_common::Row;
use sidestep_kernel::usage::Usage;

use crate::{shortcut::ShortcutStatus, status::PodState};

/// The agent as it is now.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The state of each pod, and the reason in a word where there is one.
    pub pods: Vec<(PodState, &'static str)>,
    /// Namespaces that are armed and that no pod wants any more.
    pub lingering: usize,
    /// Armed namespaces by the layout of their maps.
    pub layouts: BTreeMap<String, usize>,
    /// The shortcut.
    pub shortcut: ShortcutStatus,
    /// What each row decided since the agent started.
    pub decisions: [u64; Row::ALL.len()],
    /// How full the maps are.
    pub maps: Vec<Occupancy>,
    /// How long programs ran.
    pub programs: Vec<Usage>,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// What it holds: `pods` or `flows`.
    pub map: &'static str,
    /// How many of them.
    pub entries: usize,
    /// How many it can hold.
    pub capacity: usize,
}
