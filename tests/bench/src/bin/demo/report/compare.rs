//! Compares variants with the first one, round by round.

use serde::Serialize;
use sidestep_bench::statistics::{Spread, noise};

use super::{Report, Traffic, VariantReport};
use crate::variant::Variant;

/// How a variant compares with the first one under one kind of traffic.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Comparison {
    pub(super) variant: Variant,
    pub(super) traffic: Traffic,
    /// Of requests per second.
    pub(super) median: f64,
    /// Half the interquartile range, as a share of the median.
    pub(super) noise: f64,
    /// The median of the rounds' ratios, and the lowest and highest.
    pub(super) ratio: f64,
    pub(super) lowest: f64,
    pub(super) highest: f64,
    /// Medians.
    pub(super) kernel_us: f64,
    pub(super) user_us: f64,
    /// Of the rounds' ratios.
    pub(super) kernel_ratio: Spread,
}

impl Comparison {
    /// The same as three of the fields.
    pub(super) fn rate_ratio(&self) -> Spread {
        Spread {
            median: self.ratio,
            lowest: self.lowest,
            highest: self.highest,
        }
    }
}

impl Report {
    pub(super) fn comparisons(&self) -> Vec<Comparison> {
        let pairs = Traffic::ALL
            .into_iter()
            .flat_map(|traffic| self.variants.iter().map(move |variant| (traffic, variant)));
        pairs
            .map(|(traffic, variant)| self.compare(variant, traffic))
            .collect()
    }

    /// Compares a variant of this report with its first one.
    pub(super) fn compare(&self, variant: &VariantReport, traffic: Traffic) -> Comparison {
        let first = &self.variants[0];
        let [rates, kernel, user] = variant.series(traffic);
        let [first_rates, first_kernel, _] = first.series(traffic);
        let ratio = Spread::of_ratios(rates, first_rates);
        let median = |values: &[f64]| Spread::of(values.iter().copied()).median;
        Comparison {
            variant: variant.variant,
            traffic,
            median: median(rates),
            noise: noise(rates),
            ratio: ratio.median,
            lowest: ratio.lowest,
            highest: ratio.highest,
            kernel_us: median(kernel),
            user_us: median(user),
            kernel_ratio: Spread::of_ratios(kernel, first_kernel),
        }
    }
}

impl VariantReport {
    /// Requests per second, kernel time, user time; round by round.
    fn series(&self, traffic: Traffic) -> [&[f64]; 3] {
        [&self.rates, &self.kernel_us, &self.user_us]
            .map(|series| series.get(&traffic).map_or(&[][..], Vec::as_slice))
    }
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let report = example::report(&[
            (
                Variant::Iptables,
                &[(100.0, 20.0), (200.0, 40.0), (400.0, 10.0)],
            ),
            (
                Variant::Sidestep,
                &[(110.0, 10.0), (260.0, 30.0), (480.0, 9.0)],
            ),
        ]);
        let compared = report.compare(&report.variants[1], Traffic::KeepAlive);
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(compared.median, 260.0));
        assert!(close(compared.ratio, 1.2));
        assert!(close(compared.lowest, 1.1) && close(compared.highest, 1.3));
        assert!(close(compared.kernel_us, 10.0) && close(compared.user_us, 40.0));
        assert!(close(compared.kernel_ratio.median, 0.75));
    }
}
