//! The kinds of traffic, and what is expected of each.

use std::{fmt, time::Duration};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::Setting;
use sidestep_kit::traffic::{Load, Traffic};

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// Small answers, one connection
    One,
    /// Small answers, 32 connections
    Many,
    /// Small answers, a connection each, eight at a time
    ConnectionPerRequest,
    /// Answers of 1 KiB, four connections
    Kib,
    /// Answers of 16 KiB, four connections
    SixteenKib,
    /// Answers of 100 KiB, four connections
    Medium,
    /// Answers of 1 MiB, four connections
    Large,
    /// HTTP/2, four connections with eight requests at a time each
    Http2,
    /// Unary calls of gRPC, four connections with eight at a time each
    Grpc,
    /// Plain TCP in one direction, which sidecars pass through without TLS; a request is a MiB
    Stream,
}

impl Case {
    /// Those of the exact benchmark.
    pub const EXACT: [Self; 10] = [
        Self::One,
        Self::Many,
        Self::ConnectionPerRequest,
        Self::Kib,
        Self::SixteenKib,
        Self::Medium,
        Self::Large,
        Self::Http2,
        Self::Grpc,
        Self::Stream,
    ];

    /// Those that are measured natively.
    pub const ALL: [Self; 5] = [
        Self::One,
        Self::Many,
        Self::ConnectionPerRequest,
        Self::Medium,
        Self::Large,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "1 connection",
            Self::Many => "32 connections",
            Self::ConnectionPerRequest => "connection per request",
            Self::Kib => "1 KiB",
            Self::SixteenKib => "16 KiB",
            Self::Medium => "100 KiB",
            Self::Large => "1 MiB",
            Self::Http2 => "HTTP/2",
            Self::Grpc => "gRPC",
            Self::Stream => "TCP, a MiB",
        }
    }

    /// Whether the sidecars count its requests, which are HTTP.
    pub fn is_http(self) -> bool {
        self != Self::Stream
    }

    /// What the load generator does.
    pub fn load(self, duration: Duration) -> Load {
        let (connections, bytes, traffic) = match self {
            Self::One => (1, 64, Traffic::Http),
            Self::Many => (32, 64, Traffic::Http),
            Self::ConnectionPerRequest => (8, 64, Traffic::HttpOnce),
            Self::Kib => (4, 1 << 10, Traffic::Http),
            Self::SixteenKib => (4, 16 << 10, Traffic::Http),
            Self::Medium => (4, 100 << 10, Traffic::Http),
            Self::Large => (4, 1 << 20, Traffic::Http),
            Self::Http2 => (4, 64, Traffic::Http2 { streams: 8 }),
            Self::Grpc => (4, 64, Traffic::Grpc { streams: 8 }),
            Self::Stream => (1, 1 << 20, Traffic::Stream),
        };
        Load {
            connections,
            traffic,
            duration,
            path: format!("/bytes/{bytes}"),
        }
    }

    /// The least requests/s, as a part of those with iptables.
    pub const fn goal(self, setting: Setting) -> Option<f64> {
        let [one, many, each, medium, large] = match setting {
            Setting::Direct
            | Setting::Explicit
            | Setting::Iptables
            | Setting::Nftables
            | Setting::Off => return None,
            Setting::Pod => [1.1, 1.05, 1.3, 1.3, 1.2],
            Setting::Node => [1.2, 1.1, 1.45, 1.5, 1.4],
            Setting::NodeAndApplication => [1.4, 1.15, 1.5, 1.75, 1.7],
            #[cfg(feature = "naive")]
            Setting::Naive => return None,
        };
        match self {
            Self::One => Some(one),
            Self::Many => Some(many),
            Self::ConnectionPerRequest => Some(each),
            Self::Kib | Self::SixteenKib | Self::Http2 | Self::Grpc | Self::Stream => None,
            Self::Medium => Some(medium),
            Self::Large => Some(large),
        }
    }

    /// The most kernel time per request at the best setting, as a part of that with iptables.
    pub const fn kernel_goal(self) -> Option<f64> {
        match self {
            Self::One => Some(0.4),
            Self::Many => Some(0.6),
            Self::ConnectionPerRequest
            | Self::Kib
            | Self::SixteenKib
            | Self::Http2
            | Self::Grpc
            | Self::Stream => None,
            Self::Medium | Self::Large => Some(0.5),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
