//! What proves that the requests went where they should, and how far the rounds agree.

use std::fmt;

use sidestep_bench::statistics::Spread;

use super::{Report, VariantReport};

impl Report {
    pub(super) fn details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.answers(f)?;
        self.requests(f)?;
        self.spread(f)?;
        self.sidestep(f)
    }

    fn answers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nWho answered")?;
        for variant in &self.variants {
            for (answer, count) in &variant.answers {
                writeln!(f, "  {:<20}{answer} ({count} times)", variant.variant)?;
            }
        }
        Ok(())
    }

    fn requests(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n{:<22}{:>8}{:>8}{:>30}{:>18}",
            "Requests", "sent", "failed", "seen by the client's sidecar", "by the server's"
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
                "  {variant:<20}{sent:>8}{failed:>8}{client:>30}{server:>18}"
            )?;
        }
        Ok(())
    }

    fn spread(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.variants.first() else {
            return Ok(());
        };
        let ratio = |ratio: Spread| format!("{:.2} to {:.2}", ratio.lowest, ratio.highest);
        writeln!(
            f,
            "\n{:<46}{:>14}{:>14}{:>22}",
            "Rounds' ratios, lowest to highest", "requests/s", "kernel CPU", "user CPU per request"
        )?;
        for comparison in self.comparisons() {
            let [rate, kernel] = if comparison.variant == first.variant {
                [String::new(), String::new()]
            } else {
                [comparison.rate_ratio(), comparison.kernel_ratio].map(ratio)
            };
            writeln!(
                f,
                "  {:<24}{:<20}{rate:>14}{kernel:>14}{:>19.0} µs",
                comparison.traffic, comparison.variant, comparison.user_us
            )?;
        }
        Ok(())
    }

    fn sidestep(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.variants.iter();
        for variant in all.filter(|variant| variant.variant.has_agent()) {
            let times = variant.programmed_us.iter();
            let times = times.map(|time| format!("{}.{} ms", time / 1000, time % 1000 / 100));
            let times: Vec<String> = times.collect();
            write!(
                f,
                "\n{}: time to program a pod {}",
                variant.variant,
                times.join(", ")
            )?;
            if variant.past_tcp > 0 {
                write!(f, "; {} messages went past TCP", variant.past_tcp)?;
            }
        }
        writeln!(f)
    }
}
