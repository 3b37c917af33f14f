//! How the reconciler goes about it, and what it tells.

use std::time::Duration;

use sidestep_ebpf_common::Row;

use super::ArmError;
use crate::pods::wanted::{LeaveReason, PodName};

/// How the reconciler goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// Refuse raw TCP sockets.
    pub strict: bool,
    /// When a namespace is disarmed.
    pub release: Release,
    /// Between looks at a pod's link and pin.
    pub look: Duration,
    /// Between looks at a pod's addresses and name servers, which otherwise are read when something happens.
    pub study: Duration,
    /// How long a pod may be without a sandbox before an Event says so.
    pub patience: Duration,
}

/// When a namespace is disarmed. Traffic of a disarmed namespace bypasses its proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// As soon as no pod wants it.
    Unwanted,
    /// When it is gone. Whatever happens to the pod's object or its label, its processes stay captured to their end.
    Gone,
}

impl Mode {
    /// With Pod files: removing a file is a decision, and every pass looks at everything.
    pub const fn standalone(strict: bool) -> Self {
        Self {
            strict,
            release: Release::Unwanted,
            look: Duration::ZERO,
            study: Duration::ZERO,
            patience: Duration::MAX,
        }
    }

    /// On a Kubernetes node.
    pub const fn node(strict: bool, patience: Duration) -> Self {
        Self {
            strict,
            release: Release::Gone,
            look: Duration::from_secs(30),
            study: Duration::from_mins(10),
            patience,
        }
    }
}

/// What happened to a pod, to be counted or reported.
#[derive(Debug)]
pub enum PodEvent<'a> {
    /// It is armed, for the first time or anew.
    Armed {
        /// How long programming it took.
        took: Duration,
        /// The time since a program first saw its namespace; `None` where none did.
        reaction: Option<Duration>,
    },
    /// It is not armed for this reason, told once.
    Failed(&'a ArmError),
    /// It is left alone, told once.
    Left(&'a LeaveReason),
    /// It has had no sandbox for a while, told once.
    NoSandbox,
    /// So much of what its programs asked for was refused, though its proxy listens.
    Refused {
        /// By this row.
        row: Row,
        /// Since it was told last.
        count: u64,
    },
    /// Its namespace is gone, or was let go.
    Released,
}

/// Takes what happens.
pub type Tell = Box<dyn FnMut(&PodName, PodEvent<'_>) + Send>;
