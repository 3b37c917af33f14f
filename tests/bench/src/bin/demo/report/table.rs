//! The numbers that matter, a line a variant.

use std::fmt;

use super::{NotMeasured, Report, Traffic, VariantReport};

impl Report {
    pub(super) fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.variants.first() else {
            return Ok(());
        };
        writeln!(
            f,
            "\n{} connections at a time, kept alive or new for each request; medians of {} rounds of {} s.\n\
             × is the ratio to {}, round by round. Conntrack entries: the most in a pod, right after new connections.\n",
            self.connections, self.rounds, self.seconds, first.variant
        )?;
        writeln!(
            f,
            "{:<20}{:^34}{:^34}{:>10}{:>11}",
            "", "requests/s", "kernel CPU per request", "iptables", "conntrack"
        )?;
        let [kept, own] = ["keep-alive", "new connection"];
        writeln!(
            f,
            "{:<20}{kept:>17}{own:>17}{kept:>17}{own:>17}{:>10}{:>11}",
            "", "rules", "entries"
        )?;
        for variant in &self.variants {
            let cells = self.cells(variant, variant.variant != first.variant);
            writeln!(f, "{:<20}{cells}", variant.variant)?;
        }
        for NotMeasured { variant, reason } in &self.not_measured {
            writeln!(f, "{variant:<20}  not measured: {reason}")?;
        }
        Ok(())
    }

    fn cells(&self, variant: &VariantReport, is_compared: bool) -> String {
        let compared = Traffic::ALL.map(|traffic| self.compare(variant, traffic));
        let cell = |number: String, ratio: f64| {
            let ratio = if is_compared {
                format!("{ratio:.2} ×")
            } else {
                String::new()
            };
            format!("{number:>9}{ratio:>8}")
        };
        let compared = compared.each_ref();
        let rates = compared.map(|it| cell(whole(it.median), it.ratio)).concat();
        let times = compared
            .map(|it| cell(format!("{:.0} µs", it.kernel_us), it.kernel_ratio.median))
            .concat();
        let rules: usize = variant.iptables_rules.iter().sum();
        format!(
            "{rates}{times}{rules:>10}{:>11}",
            thousands(variant.most_tracked())
        )
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "requests per second"
)]
fn whole(number: f64) -> String {
    thousands(number.round() as u64)
}

/// With a comma between thousands.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;
    use crate::variant::Variant;

    #[test]
    fn thousands_are_parted() {
        let numbers = [0, 999, 1000, 12_345, 1_234_567].map(thousands);
        assert_eq!(numbers, ["0", "999", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn a_line_a_variant_and_why_one_is_missing() {
        let mut report = example::report(&[
            (Variant::Iptables, &[(10_000.0, 80.0); 3]),
            (Variant::Sidestep, &[(11_000.0, 72.0); 3]),
        ]);
        report.not_measured.push(NotMeasured {
            variant: Variant::Shortcut,
            reason: "kernel lockdown".into(),
        });
        let text = report.to_string();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        let has = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(lines.contains(&words), "{line}:\n{text}");
        };
        has("iptables 10,000 10,000 80 µs 80 µs 36 12,345");
        has("sidestep 11,000 1.10 × 11,000 1.10 × 72 µs 0.90 × 72 µs 0.90 × 0 0");
        has("sidestep, shortcut not measured: kernel lockdown");
    }
}
