//! What the demo found, for people and for programs.

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
}

/// How a variant compares with the first one under one kind of traffic.
#[derive(Debug, Clone, Serialize)]
struct Comparison {
    variant: Variant,
    traffic: Traffic,
    median: f64,
    /// Half the interquartile range, as a share of the median.
    noise: f64,
    /// The median of the rounds' ratios, and the lowest and highest.
    ratio: f64,
    lowest: f64,
    highest: f64,
    /// Medians.
    kernel_us: f64,
    user_us: f64,
}

impl Report {
    pub(crate) fn json(&self) -> serde_json::Value {
        let mut report = serde_json::to_value(self).expect("plain fields");
        report["comparison"] = serde_json::to_value(self.comparisons()).expect("plain fields");
        report
    }

    fn comparisons(&self) -> Vec<Comparison> {
        let Some(first) = self.variants.first() else {
            return Vec::new();
        };
        let pairs = Traffic::ALL
            .into_iter()
            .flat_map(|traffic| self.variants.iter().map(move |variant| (traffic, variant)));
        pairs
            .map(|(traffic, variant)| compare(first, variant, traffic))
            .collect()
    }
}

fn compare(first: &VariantReport, variant: &VariantReport, traffic: Traffic) -> Comparison {
    let of =
        |series: &BTreeMap<Traffic, Vec<f64>>| series.get(&traffic).cloned().unwrap_or_default();
    let rates = sorted(of(&variant.rates));
    let pairs = of(&variant.rates).into_iter().zip(of(&first.rates));
    let ratios = sorted(pairs.map(|(own, other)| own / other).collect());
    let median = quantile(&rates, 0.5);
    Comparison {
        variant: variant.variant,
        traffic,
        median,
        noise: (quantile(&rates, 0.75) - quantile(&rates, 0.25)) / 2.0 / median,
        ratio: quantile(&ratios, 0.5),
        lowest: quantile(&ratios, 0.0),
        highest: quantile(&ratios, 1.0),
        kernel_us: quantile(&sorted(of(&variant.kernel_us)), 0.5),
        user_us: quantile(&sorted(of(&variant.user_us)), 0.5),
    }
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// Of sorted values, between neighbours in proportion.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    #[expect(clippy::cast_precision_loss, reason = "a few rounds")]
    let at = share * last as f64;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the number of rounds"
    )]
    let below = at.floor() as usize;
    let above = (below + 1).min(last);
    let fraction = at - at.floor();
    sorted[below] + (sorted[above] - sorted[below]) * fraction
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nWho answered")?;
        for variant in &self.variants {
            for (answer, count) in &variant.answers {
                writeln!(f, "  {:<10}{answer} ({count} times)", variant.variant)?;
            }
        }
        writeln!(
            f,
            "\nRequests      sent  failed  seen by the client's sidecar   by the server's"
        )?;
        for variant in &self.variants {
            let VariantReport {
                variant,
                requests_sent: sent,
                requests_failed: failed,
                seen_by_client_sidecar: client,
                seen_by_server_sidecar: server,
                ..
            } = variant;
            writeln!(
                f,
                "  {variant:<10}{sent:>8}{failed:>8}{client:>30}{server:>18}"
            )?;
        }
        writeln!(
            f,
            "\nRules of iptables       in the client's pod   in the server's"
        )?;
        for variant in &self.variants {
            let [client, server] = variant.iptables_rules;
            writeln!(f, "  {:<10}{client:>31}{server:>18}", variant.variant)?;
        }
        self.rates(f)?;
        self.times(f)
    }
}

impl Report {
    fn rates(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{} connections, {} s; medians of {} rounds\n{:36}{:>10}  {:>7}  {:>24}  {:>12}",
            self.connections,
            self.seconds,
            self.rounds,
            "",
            "requests/s",
            "noise",
            "ratio (lowest, highest)",
            "µs of CPU a request: kernel, user"
        )?;
        for comparison in self.comparisons() {
            let Comparison {
                variant,
                traffic,
                median,
                noise,
                ratio,
                lowest,
                highest,
                kernel_us,
                user_us,
            } = comparison;
            let noise = format!("± {:.1} %", noise * 100.0);
            let ratio = format!("{ratio:.2} ({lowest:.2}, {highest:.2})");
            writeln!(
                f,
                "  {traffic:<24}{variant:<10}{median:>10.0}  {noise:>7}  {ratio:>24}  {kernel_us:.0}, {user_us:.0}"
            )?;
        }
        Ok(())
    }

    fn times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for variant in &self.variants {
            let times = variant.programmed_us.iter();
            let times = times.map(|time| format!("{}.{} ms", time / 1000, time % 1000 / 100));
            let times: Vec<String> = times.collect();
            if !times.is_empty() {
                writeln!(
                    f,
                    "\nTime to program one pod, {}: {}",
                    variant.variant,
                    times.join(", ")
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(variant: Variant, rates: [f64; 3]) -> VariantReport {
        let mut report = VariantReport::new(variant);
        for rate in rates {
            let measured = Measured {
                requests: 1000,
                rate,
                errors: 0,
            };
            let cpu = CpuTime {
                user: Duration::from_millis(40),
                kernel: Duration::from_millis(20),
            };
            report.add(Traffic::KeepAlive, &measured, cpu);
        }
        report
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let iptables = measured(Variant::Iptables, [100.0, 200.0, 400.0]);
        let sidestep = measured(Variant::Sidestep, [110.0, 260.0, 480.0]);
        let compared = compare(&iptables, &sidestep, Traffic::KeepAlive);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(compared.median, 260.0));
        assert!(close(compared.ratio, 1.2));
        assert!(close(compared.lowest, 1.1) && close(compared.highest, 1.3));
        assert!(close(compared.kernel_us, 20.0) && close(compared.user_us, 40.0));
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(quantile(&[1.0, 2.0], 0.5), 1.5));
        assert!(close(quantile(&[1.0, 2.0, 4.0], 1.0), 4.0));
        assert!(quantile(&[], 0.5).is_nan());
    }
}
