//! The last line: what a newcomer takes home.

use super::{Report, Traffic, VariantReport, change::Change, table::thousands};
use crate::variant::Variant;

/// Fewer do not show how far they disagree.
const FEWEST_ROUNDS: u32 = 3;

impl Report {
    /// Compares the most that Sidestep does with iptables, if both were measured and the ratios are to iptables.
    pub(super) fn closing(&self) -> Option<String> {
        let first = self.variants.first()?;
        if first.variant != Variant::Iptables {
            return None;
        }
        let find = |wanted| self.variants.iter().find(|own| own.variant == wanted);
        let own = find(Variant::Shortcut).or_else(|| find(Variant::Sidestep))?;
        if self.rounds < FEWEST_ROUNDS {
            return Some(format!(
                "Fewer than {FEWEST_ROUNDS} rounds do not tell a difference from noise."
            ));
        }
        let compared = Traffic::ALL.map(|traffic| self.compare(own, traffic));
        let time = compared.each_ref().map(|it| Change::of(it.kernel_ratio));
        let rate = compared.each_ref().map(|it| Change::of(it.rate_ratio()));
        let rules = [first, own].map(|it| it.iptables_rules.iter().sum::<usize>() as u64);
        let tracked = [first, own].map(VariantReport::most_tracked);
        let kernel = list([
            tell(time, |time| {
                format!("{} time on each request", time.words("less"))
            })
            .map(|time| format!("spends {time}")),
            count(rules, "holds", "iptables rule"),
            count(tracked, "tracks", "connection"),
        ]);
        let rate_words = tell(rate, |rate| format!("{} requests/s", rate.words("fewer")));
        let noise = list([unsure(time, "kernel time"), unsure(rate, "requests/s")]);
        let name = match own.variant {
            Variant::Shortcut => "Sidestep and its shortcut",
            _ => "Sidestep",
        };
        let clauses = [
            kernel.map(|kernel| format!("this machine's kernel {kernel}")),
            rate_words.map(|rate| format!("the server answers {rate}")),
            noise.map(|noise| format!("the difference in {noise} is within the noise")),
        ];
        let clauses: Vec<String> = clauses.into_iter().flatten().collect();
        Some(format!(
            "With {name} instead of iptables, {}.",
            clauses.join("; ")
        ))
    }
}

/// Where a change is, if it is not told of both kinds of traffic.
const PLACES: [&str; 2] = ["over kept connections", "over new connections"];

/// The changes that are no noise: in one if both kinds of traffic say the same, else each with its kind.
fn tell(changes: [Option<Change>; 2], words: impl Fn(Change) -> String) -> Option<String> {
    let [kept, new] = changes;
    if let Some(both) = kept.zip(new).and_then(|(kept, new)| kept.join(new)) {
        return Some(words(both));
    }
    let place = |at: usize| Some(format!("{} {}", words(changes[at]?), PLACES[at]));
    list([place(0), place(1)])
}

/// Where the difference in something is noise.
fn unsure(changes: [Option<Change>; 2], what: &str) -> Option<String> {
    match changes {
        [None, None] => Some(what.to_owned()),
        [None, Some(_)] => Some(format!("{what} {}", PLACES[0])),
        [Some(_), None] => Some(format!("{what} {}", PLACES[1])),
        [Some(_), Some(_)] => None,
    }
}

/// What the kernel has of something, where it has or had any.
fn count([first, own]: [u64; 2], does: &str, what: &str) -> Option<String> {
    match (first, own) {
        (0, 0) => None,
        (_, 0) => Some(format!("{does} no {what}")),
        _ => Some(format!(
            "{does} {} {what}s instead of {}",
            thousands(own),
            thousands(first)
        )),
    }
}

/// Those that there are, if any.
fn list<const N: usize>(parts: [Option<String>; N]) -> Option<String> {
    let mut parts: Vec<String> = parts.into_iter().flatten().collect();
    let last = parts.pop()?;
    if parts.is_empty() {
        return Some(last);
    }
    Some(format!("{} and {last}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    type Rounds<'a> = &'a [(f64, f64)];

    const BEFORE: Rounds<'_> = &[(100.0, 100.0); 3];

    fn closing(variants: &[(Variant, Rounds<'_>)]) -> Option<String> {
        example::report(variants).closing()
    }

    fn shortcut(rounds: Rounds<'_>) -> String {
        let variants = [(Variant::Iptables, BEFORE), (Variant::Shortcut, rounds)];
        closing(&variants).expect("both were measured")
    }

    #[test]
    fn a_gain_is_told() {
        assert_eq!(
            shortcut(&[(113.0, 77.0), (112.0, 78.0), (114.0, 76.0)]),
            "With Sidestep and its shortcut instead of iptables, this machine's kernel spends 23 % less time on each request, \
             holds no iptables rule and tracks no connection; the server answers 13 % more requests/s."
        );
    }

    #[test]
    fn a_loss_is_told_as_plainly() {
        assert_eq!(
            shortcut(&[(90.0, 120.0); 3]),
            "With Sidestep and its shortcut instead of iptables, this machine's kernel spends 20 % more time on each request, \
             holds no iptables rule and tracks no connection; the server answers 10 % fewer requests/s."
        );
    }

    #[test]
    fn what_the_rounds_disagree_about_is_noise() {
        // In the median 5 % more requests, but from 1 % fewer to 9 % more; and 2 % less time, but from 4 to 1.
        assert_eq!(
            shortcut(&[(99.0, 99.0), (105.0, 98.0), (109.0, 96.0)]),
            "With Sidestep and its shortcut instead of iptables, this machine's kernel holds no iptables rule and tracks no \
             connection; the difference in kernel time and requests/s is within the noise."
        );
    }

    #[test]
    fn kinds_of_traffic_that_differ_are_told_apart() {
        let mut report = example::report(&[(Variant::Iptables, BEFORE)]);
        let mut own = VariantReport::new(Variant::Shortcut);
        for [kept, new] in [[110.0, 90.0], [111.0, 100.0], [112.0, 110.0]] {
            example::add(&mut own, Traffic::KeepAlive, kept, 80.0);
            example::add(&mut own, Traffic::ConnectionPerRequest, new, 75.0);
        }
        report.variants.push(own);
        assert_eq!(
            report.closing().expect("both were measured"),
            "With Sidestep and its shortcut instead of iptables, this machine's kernel spends 20 to 25 % less time on each \
             request, holds no iptables rule and tracks no connection; the server answers 11 % more requests/s over kept \
             connections; the difference in requests/s over new connections is within the noise."
        );
    }

    #[test]
    fn directions_that_differ_are_both_told() {
        let mut report = example::report(&[(Variant::Iptables, BEFORE)]);
        let mut own = VariantReport::new(Variant::Shortcut);
        for _ in 0..3 {
            example::add(&mut own, Traffic::KeepAlive, 109.0, 91.0);
            example::add(&mut own, Traffic::ConnectionPerRequest, 97.0, 103.0);
        }
        report.variants.push(own);
        assert_eq!(
            report.closing().expect("both were measured"),
            "With Sidestep and its shortcut instead of iptables, this machine's kernel spends 9 % less time on each request \
             over kept connections and 3 % more time on each request over new connections, holds no iptables rule and \
             tracks no connection; the server answers 9 % more requests/s over kept connections and 3 % fewer requests/s \
             over new connections."
        );
    }

    #[test]
    fn without_the_shortcut_it_is_about_sidestep() {
        let variants = [(Variant::Iptables, BEFORE), (Variant::Sidestep, BEFORE)];
        let line = closing(&variants).expect("both were measured");
        assert!(line.starts_with("With Sidestep instead of iptables, "));
    }

    #[test]
    fn what_is_there_is_no_claim() {
        assert_eq!(count([0, 0], "tracks", "connection"), None);
        assert_eq!(
            count([9000, 1200], "tracks", "connection").expect("some are tracked"),
            "tracks 1,200 connections instead of 9,000"
        );
    }

    #[test]
    fn nothing_is_told_of_other_comparisons() {
        assert_eq!(closing(&[(Variant::Iptables, BEFORE)]), None);
        let variants = [(Variant::Direct, BEFORE), (Variant::Sidestep, BEFORE)];
        assert_eq!(closing(&variants), None);
        let mut report =
            example::report(&[(Variant::Iptables, BEFORE), (Variant::Sidestep, BEFORE)]);
        report.rounds = 2;
        let line = report.closing().expect("both were measured");
        assert_eq!(
            line,
            "Fewer than 3 rounds do not tell a difference from noise."
        );
    }
}
