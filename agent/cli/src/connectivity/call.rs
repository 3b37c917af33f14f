//! One call by a test's pod, and what came of it. The desk writes a [`Call`] as JSON into the arguments of a hidden command, which
//! runs in the pod and prints a line with the outcome.

mod dns;
mod http;
mod tcp;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use self::dns::Resolver;

/// What a pod is to do. A host is a Service's name or an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "call")]
pub(super) enum Call {
    /// Asks once by HTTP/1.1.
    Http { host: String, port: u16 },
    /// Asks many times, each time over a new connection.
    Many {
        host: String,
        port: u16,
        requests: usize,
        at_once: usize,
    },
    /// A unary call of gRPC.
    Grpc { host: String, port: u16 },
    /// Sends bytes and compares what comes back. If it half-closes, it says that it is done, and is then told how many bytes came.
    Echo {
        host: String,
        port: u16,
        bytes: usize,
        half_close: bool,
    },
    /// Asks from where it is seen to call.
    Peer { host: String, port: u16 },
    /// Calls a port where nobody should answer.
    Knock { host: String, port: u16 },
    /// Asks the pod's name server for the addresses of a Service.
    Lookup { name: String, tcp: bool },
}

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// How long the call took, in microseconds.
    pub(super) us: u64,
    /// Who answered by HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<Answer>,
    /// The caller's address as the server saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) peer: Option<SocketAddr>,
    /// The caller's address as it saw that itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) local: Option<SocketAddr>,
    /// What a name stands for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) addresses: Vec<IpAddr>,
}

/// What a server tells by HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Its pod.
    pub(super) pod: String,
    /// Whose certificate the caller's sidecar showed to the server's: the header `x-forwarded-client-cert`.
    pub(super) certificate: Option<String>,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failed {
    /// Whether nothing happened for too long.
    pub(super) timed_out: bool,
    /// What happened.
    pub(super) said: String,
}

/// What came of a call.
pub(super) type Made = Result<Seen, Failed>;

impl Call {
    /// How long it may take.
    const fn limit(&self) -> Duration {
        match self {
            // To be refused takes no time.
            Self::Knock { .. } => Duration::from_secs(5),
            Self::Many { .. } => Duration::from_mins(1),
            _ => Duration::from_secs(20),
        }
    }

    async fn made(&self) -> Made {
        let begun = Instant::now();
        let limit = self.limit();
        let made = timeout(limit, self.make()).await;
        let failed = |timed_out, said| Failed { timed_out, said };
        let late = |_| {
            failed(
                true,
                format!("nothing came of it within {} s", limit.as_secs()),
            )
        };
        let seen = made.map_err(late)?.map_err(|said| failed(false, said))?;
        let us = begun.elapsed().as_micros();
        Ok(Seen {
            us: u64::try_from(us).unwrap_or(u64::MAX),
            ..seen
        })
    }

    async fn make(&self) -> Result<Seen, String> {
        let resolver = Resolver::of_this_pod();
        match self {
            Self::Http { host, port } => {
                let address = resolver.resolve(host, *port).await?;
                http::get(address, host).await
            }
            Self::Many {
                host,
                port,
                requests,
                at_once,
            } => {
                let address = resolver.resolve(host, *port).await?;
                http::many(address, host, *requests, *at_once).await
            }
            Self::Grpc { host, port } => {
                let address = resolver.resolve(host, *port).await?;
                http::unary(address, host).await
            }
            Self::Echo {
                host,
                port,
                bytes,
                half_close,
            } => {
                let address = resolver.resolve(host, *port).await?;
                tcp::echo(address, *bytes, *half_close).await
            }
            Self::Peer { host, port } => tcp::peer(resolver.resolve(host, *port).await?).await,
            Self::Knock { host, port } => tcp::knock(resolver.resolve(host, *port).await?).await,
            Self::Lookup { name, tcp } => {
                let addresses = resolver.addresses(name, *tcp).await?;
                Ok(Seen {
                    addresses,
                    ..Seen::default()
                })
            }
        }
    }
}

/// Makes one call, and prints a line of JSON with what came of it.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The call, as JSON
    #[arg(value_name = "JSON", value_parser = parsed)]
    call: Call,
}

fn parsed(text: &str) -> Result<Call, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let Self { call } = self;
        println!("{}", serde_json::to_string(&call.made().await)?);
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_read_as_it_was_written() {
        let calls = [
            Call::Many {
                host: "near".to_owned(),
                port: 80,
                requests: 200,
                at_once: 16,
            },
            Call::Lookup {
                name: "near".to_owned(),
                tcp: true,
            },
        ];
        for call in calls {
            let text = serde_json::to_string(&call).expect("JSON");
            assert_eq!(parsed(&text), Ok(call), "{text}");
        }
        assert!(parsed("{\"call\": \"dance\"}").is_err());
    }

    #[test]
    fn an_outcome_is_read_as_it_was_written() {
        let seen = Seen {
            us: 7,
            local: Some("10.0.0.1:7".parse().expect("an address")),
            ..Seen::default()
        };
        let failed = Failed {
            timed_out: true,
            said: "x".to_owned(),
        };
        for made in [Ok(seen), Err(failed)] {
            let text = serde_json::to_string(&made).expect("JSON");
            let read: Made = serde_json::from_str(&text).expect("an outcome");
            assert_eq!(read, made, "{text}");
        }
    }
}
