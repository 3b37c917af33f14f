//! What of a call should be seen, what was seen instead, and what to do then.

use std::net::{IpAddr, SocketAddr};

use super::{Place, Step};
use crate::connectivity::call::{Call, Made, Seen};
use crate::connectivity::plan::OUTSIDE;

/// What should be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// This pod answers, and this is so of the caller's certificate.
    Answer(&'static str, Certificate),
    /// It succeeds.
    Success,
    /// The server sees the address that the client has.
    NoProxy,
    /// It is refused, and does not hang.
    Refusal,
    /// The name stands for this address.
    Address(IpAddr),
}

/// The certificate of the caller's sidecar, as the server is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certificate {
    /// It must be there: the connection was by mutual TLS.
    Shown,
    /// It must not be there.
    Absent,
    /// Either.
    Any,
}

impl Step {
    /// How long it took, if what should be seen was seen; otherwise what was seen instead.
    pub(in crate::connectivity) fn judged(&self, made: &Made) -> Result<u64, String> {
        let called = self.call.words();
        match (self.wants, made) {
            (Wants::Refusal, Err(failed)) if !failed.timed_out => Ok(0),
            (Wants::Refusal, Err(_)) => Err(format!("{called} hangs: it should be refused")),
            (Wants::Refusal, Ok(_)) => Err(format!("{called} is answered: it should be refused")),
            (_, Err(failed)) => Err(format!("{called}: {}", failed.said)),
            (wants, Ok(seen)) => match wants.missed(seen) {
                None => Ok(seen.us),
                Some(why) => Err(format!("{called}: {why}")),
            },
        }
    }

    /// What to do next where it failed, in the namespace of the test.
    pub(in crate::connectivity) fn hint(&self, place: &Place) -> String {
        let (from, namespace) = (self.from, &place.namespace);
        match (&self.call, self.to) {
            (Call::Lookup { .. }, _) => format!(
                "`sidestep explain pod/{from} -n {namespace} --all` says which row decides about port 53"
            ),
            (_, Some(to)) if from != OUTSIDE => format!(
                "`sidestep explain pod/{from} -n {namespace} --to {to}` says which row decides, `kubectl -n {namespace} logs {from} -c istio-proxy` what its sidecar met"
            ),
            _ => format!(
                "`kubectl -n {namespace} get peerauthentications` and `istioctl -n {namespace} proxy-status` show what the sidecars know"
            ),
        }
    }
}

impl Wants {
    /// What of it was not seen.
    fn missed(self, seen: &Seen) -> Option<String> {
        match self {
            Self::Success | Self::Refusal => None,
            Self::Answer(pod, certificate) => {
                let answer = seen.answer.as_ref();
                let Some(answer) = answer.filter(|answer| answer.pod == pod) else {
                    let who = answer.map(|answer| answer.pod.as_str());
                    return Some(format!(
                        "pod {} answers, not {pod}",
                        who.unwrap_or("nobody")
                    ));
                };
                match (certificate, &answer.certificate) {
                    (Certificate::Shown, None) => Some(
                        "the server sees no certificate (x-forwarded-client-cert): it was not by mutual TLS"
                            .to_owned(),
                    ),
                    (Certificate::Absent, Some(certificate)) => Some(format!(
                        "the server sees a certificate of a pod that has none: {certificate}"
                    )),
                    _ => None,
                }
            }
            Self::NoProxy => match (seen.peer, seen.local) {
                (Some(peer), Some(local)) if peer == local => None,
                (peer, local) => {
                    let text = |address: Option<SocketAddr>| {
                        address.map_or("nothing".to_owned(), |address| address.to_string())
                    };
                    Some(format!(
                        "the client calls from {}, and the server sees {}: a proxy is between them",
                        text(local),
                        text(peer)
                    ))
                }
            },
            Self::Address(address) => {
                let found = &seen.addresses;
                let is_it = found.contains(&address);
                (!is_it).then(|| format!("the answer is {found:?}, not {address}"))
            }
        }
    }
}

impl Call {
    /// For people.
    fn words(&self) -> String {
        let to = self.to().map(|(host, port)| format!("{host} port {port}"));
        let to = to.unwrap_or_default();
        match self {
            Self::Http { .. } => format!("HTTP to {to}"),
            Self::Many { requests, .. } => format!("{requests} requests by HTTP to {to}"),
            Self::Grpc { .. } => format!("gRPC to {to}"),
            Self::Echo { bytes, .. } => format!("{bytes} bytes by TCP to {to}"),
            Self::Peer { .. } | Self::Knock { .. } => format!("TCP to {to}"),
            Self::Lookup { name, tcp } => {
                let by = if *tcp { "TCP" } else { "UDP" };
                format!("the name {name} by {by}")
            }
        }
    }
}
