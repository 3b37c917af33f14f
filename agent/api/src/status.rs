//! The agent and its pods.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::ShortcutStatus;

/// The agent and its pods.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Programs are attached, maps pinned, and the last check found or made everything as it should be.
    pub ready: bool,
    /// The agent's version.
    pub version: String,
    /// The agent's process id.
    pub pid: u32,
    /// The Kubernetes node whose pods it looks after; absent where it reads Pod files.
    #[serde(default)]
    pub node: Option<String>,
    /// The pods' cgroup.
    pub cgroup: PathBuf,
    /// Every pod, by name.
    pub pods: Vec<PodStatus>,
    /// How many network namespaces depend on which layout of the maps, by its name, such as `v1`: while a release with another
    /// layout rolls out, there are two.
    #[serde(default)]
    pub layouts: BTreeMap<String, usize>,
    /// The shortcut.
    #[serde(default)]
    pub shortcut: ShortcutStatus,
    /// Files that cannot be used, and why the agent is not ready.
    pub errors: Vec<String>,
    /// Links and pins that had to be restored, newest last.
    pub repairs: Vec<String>,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PodState {
    /// Not armed yet; see the reason. It is tried again.
    Pending,
    /// Armed; its proxy has not listened yet, so nothing is captured, as before `istio-init` ran.
    Armed,
    /// Its connections are captured.
    Active,
    /// Captured by another version of Sidestep, which was here before; see the reason.
    Kept,
    /// Left to Istio; see the reason.
    Left,
    /// Its containers have ended, and its namespace is gone.
    Ended,
}

impl PodState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Armed,
        Self::Active,
        Self::Kept,
        Self::Left,
        Self::Ended,
    ];

    /// The stable spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Armed => "armed",
            Self::Active => "active",
            Self::Kept => "kept",
            Self::Left => "left",
            Self::Ended => "ended",
        }
    }
}

/// One pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodStatus {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Network namespace, as its file names it.
    pub netns: Option<String>,
    /// The pod's uid, where Kubernetes tells it.
    #[serde(default)]
    pub uid: Option<String>,
    /// The network namespace's cookie.
    pub cookie: Option<u64>,
    /// How far it is.
    pub state: PodState,
    /// Why it is pending or left.
    pub reason: Option<String>,
    /// Its policy in short.
    pub policy: Option<String>,
    /// How long programming it took, in microseconds.
    pub programmed_us: Option<u64>,
    /// From its first process in its namespace, as the kernel told it, to its record, in microseconds.
    #[serde(default)]
    pub reaction_us: Option<u64>,
    /// Decisions by row; rows that never decided are left out.
    pub rows: BTreeMap<String, u64>,
    /// Captured connections that are open.
    pub flows: usize,
}
