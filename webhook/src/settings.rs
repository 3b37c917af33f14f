//! Cluster-wide settings.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use sidestep_contract::gate::PROBE_TIMEOUT;

/// What the cluster's owner decided. Pods and namespaces may say otherwise where that is theirs to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What happens to pods that say nothing, in namespaces that say nothing.
    pub enrolment: Enrolment,
    /// How far the shortcut reaches where neither pod nor namespace says.
    pub reach: Reach,
    /// How long a gate waits for its node's agent.
    pub probe_timeout: Duration,
    /// Whether pods are kept off nodes that cannot run Sidestep.
    pub avoid_unsupported: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enrolment: Enrolment::OptOut,
            reach: Reach::Pod,
            probe_timeout: PROBE_TIMEOUT,
            avoid_unsupported: false,
        }
    }
}

/// A word that does not belong to a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// The words that do.
    pub expected: &'static str,
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.expected)
    }
}

impl std::error::Error for UnknownWord {}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $expected:literal { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// As it is spelled in annotations and on the command line.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { expected: $expected }),
                }
            }
        }
    };
}

words! {
    /// Whether a pod must ask.
    Enrolment, "opt-out or opt-in" {
        /// Injected pods are accelerated unless they or their namespaces refuse.
        OptOut = "opt-out",
        /// Only those that ask, or whose namespaces do.
        OptIn = "opt-in",
    }
}

words! {
    /// How far the shortcut reaches: whose sockets may be joined inside the kernel.
    Reach, "off, pod or node" {
        /// Nobody's.
        Off = "off",
        /// The application's and its own sidecar's.
        Pod = "pod",
        /// Those of sidecars on one node, too.
        Node = "node",
    }
}

words! {
    /// Into whose sockets the shortcut delivers.
    Delivery, "proxy or application" {
        /// The proxy's only.
        Proxy = "proxy",
        /// The application's as well, which must read in ways that the shortcut can carry.
        Application = "application",
    }
}
