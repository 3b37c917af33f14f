//! What the demo found, for people and for programs.

mod change;
mod closing;
mod compare;
mod details;
mod table;

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::Serialize;
use sidestep_kit::{
    app::Seen,
    load::Measured,
    mesh::{CpuTime, Requests},
};

use crate::variant::Variant;

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Traffic {
    KeepAlive,
    ConnectionPerRequest,
}

impl Traffic {
    pub(crate) const ALL: [Self; 2] = [Self::KeepAlive, Self::ConnectionPerRequest];
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::KeepAlive => "keep-alive",
            Self::ConnectionPerRequest => "connection per request",
        })
    }
}

/// One variant's part.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct VariantReport {
    pub(crate) variant: Variant,
    /// The server's name, what it saw of its caller, and how often.
    pub(crate) answers: BTreeMap<String, u64>,
    pub(crate) requests_sent: u64,
    pub(crate) requests_failed: u64,
    pub(crate) seen_by_client_sidecar: u64,
    pub(crate) seen_by_server_sidecar: u64,
    /// In the client's pod and in the server's.
    pub(crate) iptables_rules: [usize; 2],
    pub(crate) programmed_us: Vec<u64>,
    /// The most connections that the kernel tracked, right after a connection per request; in the client's pod and in the
    /// server's.
    pub(crate) conntrack_entries: [u64; 2],
    /// Messages that the shortcut moved.
    pub(crate) past_tcp: u64,
    /// Requests per second, a number a round.
    pub(crate) rates: BTreeMap<Traffic, Vec<f64>>,
    /// Processor time of both pods in the kernel, in microseconds per request, a number a round.
    pub(crate) kernel_us: BTreeMap<Traffic, Vec<f64>>,
    /// The same in the programs.
    pub(crate) user_us: BTreeMap<Traffic, Vec<f64>>,
}

impl VariantReport {
    pub(crate) fn new(variant: Variant) -> Self {
        Self {
            variant,
            answers: BTreeMap::new(),
            requests_sent: 0,
            requests_failed: 0,
            seen_by_client_sidecar: 0,
            seen_by_server_sidecar: 0,
            iptables_rules: [0; 2],
            programmed_us: Vec::new(),
            conntrack_entries: [0; 2],
            past_tcp: 0,
            rates: BTreeMap::new(),
            kernel_us: BTreeMap::new(),
            user_us: BTreeMap::new(),
        }
    }

    pub(crate) fn answered_by(&mut self, answers: &[Seen]) {
        for answer in answers {
            let certificate = answer.headers.get("x-forwarded-client-cert");
            let caller = certificate
                .and_then(|parts| parts.split(';').find_map(|part| part.strip_prefix("URI=")))
                .map_or("a caller it cannot name".to_owned(), str::to_owned);
            let line = format!(
                "{}, called from {} by {caller}",
                answer.pod,
                answer.peer.ip()
            );
            *self.answers.entry(line).or_default() += 1;
        }
    }

    pub(crate) fn count(&mut self, sent: u64, seen: Requests) {
        self.requests_sent += sent;
        self.seen_by_client_sidecar += seen.outbound;
        self.seen_by_server_sidecar += seen.inbound;
    }

    pub(crate) fn tracked(&mut self, now: [u64; 2]) {
        for (most, now) in self.conntrack_entries.iter_mut().zip(now) {
            *most = now.max(*most);
        }
    }

    pub(crate) fn add(&mut self, traffic: Traffic, measured: &Measured, cpu: CpuTime) {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let per_request = |time: Duration| time.as_secs_f64() * 1e6 / measured.requests as f64;
        let numbers = [
            (&mut self.rates, measured.rate),
            (&mut self.kernel_us, per_request(cpu.kernel)),
            (&mut self.user_us, per_request(cpu.user)),
        ];
        for (series, number) in numbers {
            series.entry(traffic).or_default().push(number);
        }
    }

    /// In the pod that has more.
    pub(crate) fn most_tracked(&self) -> u64 {
        self.conntrack_entries.into_iter().max().unwrap_or_default()
    }

    /// The last round in a line.
    pub(crate) fn latest(&self) -> String {
        let rates = self.rates.iter().map(|(traffic, rates)| {
            format!(
                "{traffic} {:.0}/s",
                rates.last().copied().unwrap_or_default()
            )
        });
        rates.collect::<Vec<_>>().join(", ")
    }
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) rounds: u32,
    pub(crate) seconds: u64,
    pub(crate) connections: u32,
    pub(crate) variants: Vec<VariantReport>,
    pub(crate) not_measured: Vec<NotMeasured>,
}

/// A variant that this kernel does not have.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NotMeasured {
    pub(crate) variant: Variant,
    pub(crate) reason: String,
}

impl Report {
    pub(crate) fn json(&self) -> serde_json::Value {
        let mut report = serde_json::to_value(self).expect("plain fields");
        report["comparison"] = serde_json::to_value(self.comparisons()).expect("plain fields");
        report["closing"] = serde_json::to_value(self.closing()).expect("a string");
        report
    }
}

/// The details first: a reader stays with what is last.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.details(f)?;
        self.table(f)?;
        self.closing()
            .map_or(Ok(()), |closing| writeln!(f, "\n{closing}"))
    }
}

/// A report that was not measured, for tests.
#[cfg(test)]
mod example;
