//! The ways to redirect that are compared.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// A way to bring a pod's connections to its sidecar, and how far bytes go past TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setting {
    /// No redirection: the sidecars see nothing
    Direct,
    /// No redirection either: the application calls its sidecar, and sidecars each other
    Explicit,
    /// Istio's own rules
    Iptables,
    /// Istio's own rules where it is installed to write nftables rules itself
    Nftables,
    /// Sidestep without the shortcut
    Off,
    /// Between an application and its own sidecar
    Pod,
    /// Also between the sidecars of the node
    Node,
    /// Also whatever else an application gets that asks for it: past TCP from its sockets, and into them
    NodeAndApplication,
    /// The usual recipe: whatever has its other end on the node goes past TCP. It corrupts streams
    #[cfg(feature = "naive")]
    Naive,
}

impl Setting {
    /// Those that are compared natively; ratios are to the first.
    pub const ALL: [Self; 5] = [
        Self::Iptables,
        Self::Off,
        Self::Pod,
        Self::Node,
        Self::NodeAndApplication,
    ];

    /// Those of the exact benchmark.
    pub const EXACT: [Self; 8] = [
        Self::Direct,
        Self::Explicit,
        Self::Iptables,
        Self::Nftables,
        Self::Off,
        Self::Pod,
        Self::Node,
        Self::NodeAndApplication,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "no mesh",
            Self::Explicit => "explicit proxy",
            Self::Iptables => "iptables",
            Self::Nftables => "native nftables",
            Self::Off => "sidestep, off",
            Self::Pod => "pod",
            Self::Node => "node",
            Self::NodeAndApplication => "node, apps ask",
            #[cfg(feature = "naive")]
            Self::Naive => "naive (corrupts)",
        }
    }

    /// How far the shortcut reaches, as annotations and the agent's flag say it.
    pub const fn reach(self) -> &'static str {
        match self {
            Self::Direct | Self::Explicit | Self::Iptables | Self::Nftables | Self::Off => "off",
            Self::Pod => "pod",
            Self::Node | Self::NodeAndApplication => "node",
            #[cfg(feature = "naive")]
            Self::Naive => "node",
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
