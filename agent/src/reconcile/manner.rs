//! How the reconciler goes about it, and what it tells.

use std::time::Duration;

use crate::{
    arm::ArmError,
    pods::wanted::{Left, PodName},
};

/// How the reconciler goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Refuse raw TCP sockets.
    pub strict: bool,
    /// When a namespace is taken out of the kernel.
    pub release: Release,
    /// Between looks at a pod's link and pin.
    pub look: Duration,
    /// Between looks at a pod's addresses and name servers, which otherwise are read when something happens.
    pub study: Duration,
    /// How long a pod may be without a sandbox before somebody should know.
    pub patience: Duration,
}

/// When a namespace is taken out of the kernel. What is taken out goes around its proxy from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// As soon as no pod wants it.
    Unwanted,
    /// When it is gone. Whatever happens to the pod's object or its label, its processes stay captured to their end.
    Gone,
}

impl Manner {
    /// With Pod files: who removes one means it, and every pass looks at everything.
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

/// What happened to a pod, for whoever counts or reports it.
#[derive(Debug)]
pub enum Happening<'a> {
    /// It is armed, for the first time or anew.
    Armed {
        /// How long programming it took.
        took: Duration,
        /// The time since its namespace was first seen; where nobody saw it, nothing.
        reaction: Option<Duration>,
    },
    /// It is not armed for this reason, told once.
    Failed(&'a ArmError),
    /// It is left alone, told once.
    Left(&'a Left),
    /// It has had no sandbox for a while, told once.
    NoSandbox,
    /// So many of its connections were refused because it, or the node, has too many of them open.
    Refused {
        /// Since it was told last.
        count: u64,
    },
    /// Its namespace is gone, or was let go.
    Released,
}

/// Hears what happens.
pub type Tell = Box<dyn FnMut(&PodName, Happening<'_>) + Send>;
