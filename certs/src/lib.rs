//! The admission webhook's own certificates: made when missing, kept in a Secret, trusted in the webhook configuration's
//! `caBundle`, and rotated without a moment in which the API server and a replica disagree.
//!
//! [`plan`] and [`bundle`] are pure: from the Secret's content and the time they compute the next step and the bundle.
//! [`keeper`] takes the steps, one writer at a time; [`store`] is the API server.
//!
//! One rule holds everywhere: **a leaf is written only when its CA has been seen in every `caBundle` for a while, and a CA
//! leaves the bundle only when it has expired**, and with it every leaf that it ever signed.

#![forbid(unsafe_code)]

pub mod authority;
pub mod bundle;
pub mod cert;
pub mod holding;
pub mod keeper;
pub mod kube_store;
pub mod plan;
pub mod store;

use std::time::Duration;

/// How long certificates live, and how long a new CA is trusted before it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of a leaf. A CA lives ten times as long.
    leaf: Duration,
}

impl Lifetimes {
    /// Certificates that live this long; a second is the unit of X.509.
    pub const fn new(leaf: Duration) -> Self {
        Self { leaf }
    }

    /// Of a leaf.
    pub const fn leaf(self) -> Duration {
        self.leaf
    }

    /// Of a CA.
    pub const fn authority(self) -> Duration {
        self.leaf.saturating_mul(10)
    }

    /// For how long a new CA must have been in every `caBundle` before a leaf of it replaces one that is still good. API
    /// servers read webhook configurations through a watch: seconds, minutes where one is restarting.
    pub fn overlap(self) -> Duration {
        Duration::from_mins(10).min(self.leaf / 3)
    }

    /// The same if there is no valid leaf to replace, so that waiting costs more than it saves.
    pub fn settle(self) -> Duration {
        Duration::from_secs(2)
    }
}
