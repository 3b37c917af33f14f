//! The ports of a test's pods.

/// A port that every pod of a test listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    /// HTTP.
    Http,
    /// gRPC.
    Grpc,
    /// HTTP, with mutual TLS alone.
    Strict,
    /// Plain TCP, which is answered with what came.
    Echo,
    /// Plain TCP that the sidecars' annotations exclude: who calls is told from where it is seen to call.
    Excluded,
}

impl Port {
    /// All of them.
    pub(super) const ALL: [Self; 5] = [
        Self::Http,
        Self::Grpc,
        Self::Strict,
        Self::Echo,
        Self::Excluded,
    ];

    /// Its number.
    pub(super) const fn number(self) -> u16 {
        match self {
            Self::Http => 8080,
            Self::Grpc => 8081,
            Self::Strict => 8082,
            Self::Echo => 9000,
            Self::Excluded => 9001,
        }
    }

    /// Its name. Istio reads the protocol from what stands before the dash.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc-unary",
            Self::Strict => "http-strict",
            Self::Echo => "tcp-echo",
            Self::Excluded => "tcp-excluded",
        }
    }
}

/// A port that nobody listens on.
pub(super) const CLOSED: u16 = 9009;
