//! The tables that are printed: cases by oracle and reason, rows by how often they decided, what was left or refused.

use std::{collections::BTreeMap, fmt};

use sidestep_ebpf_common::Row;

use crate::{
    case::Case,
    compare::{Answer, Difference},
    plan::Reason,
};

/// What came of all cases.
#[derive(Debug, Default)]
pub struct Report {
    kinds: BTreeMap<(&'static str, Reason), Counts>,
    rows: BTreeMap<&'static str, usize>,
    left: Examples,
    refused: Examples,
    /// Each with the case it was found in.
    pub differences: Vec<(usize, Difference)>,
}

/// How often, and the shortest policy of which it was said.
type Examples = BTreeMap<String, (usize, String)>;

#[derive(Debug, Default)]
struct Counts {
    policies: usize,
    left: usize,
    refused: usize,
    pairs: usize,
    differences: usize,
}

impl Report {
    /// Counts the answer to the case with this index.
    pub fn count(&mut self, index: usize, case: &Case, answer: Answer) {
        let oracle = if case.policy.is_native() {
            "nftables"
        } else {
            "iptables"
        };
        let counts = self.kinds.entry((oracle, case.reason)).or_default();
        counts.policies += 1;
        match answer {
            Answer::Left(reason) => {
                counts.left += 1;
                example(&mut self.left, reason, case);
            }
            Answer::Refused(words) => {
                counts.refused += 1;
                example(&mut self.refused, words, case);
            }
            Answer::Compared { rows, differences } => {
                counts.pairs += rows.len();
                counts.differences += differences.len();
                for row in rows {
                    *self.rows.entry(row.name()).or_default() += 1;
                }
                let found = differences.into_iter().map(|it| (index, it));
                self.differences.extend(found);
            }
        }
    }

    /// How many (policy, connection) pairs were compared.
    pub fn pairs(&self) -> usize {
        self.kinds.values().map(|it| it.pairs).sum()
    }

    /// The rows of both lists that decided nowhere, of those that a rule can reach.
    pub fn unreached(&self) -> Vec<&'static str> {
        let reachable = Row::ALL.iter().filter(|row| !NOT_OF_RULES.contains(row));
        let names = reachable.map(|row| row.name());
        names.filter(|name| !self.rows.contains_key(name)).collect()
    }
}

/// What refuses a connection whatever the rules say.
pub(crate) const NOT_OF_RULES: [Row; 3] = [Row::InRefused, Row::RawRefused, Row::OutFull];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10}{:<10}{:>9}{:>6}{:>9}{:>9}{:>13}",
            "rules of", "reason", "policies", "left", "refused", "pairs", "differences"
        )?;
        let mut total = Counts::default();
        for ((oracle, reason), counts) in &self.kinds {
            total.add(counts);
            let reason = format!("{reason:?}").to_lowercase();
            line(f, oracle, &reason, counts)?;
        }
        line(f, "all", "", &total)?;
        for (what, counts) in [
            ("Rows that decided:", None),
            ("Left to Istio, by reason:", Some(&self.left)),
            (
                "Refused by Istio's own program, so that its pod would not start, and taken by Sidestep:",
                Some(&self.refused),
            ),
        ] {
            writeln!(f, "\n{what}")?;
            match counts {
                None => {
                    let row = |row: &Row| {
                        let count = self.rows.get(row.name())?;
                        Some(format!("{} {count}", row.name()))
                    };
                    let rows: Vec<_> = Row::ALL.iter().filter_map(row).collect();
                    writeln!(f, "  {}", rows.join(", "))?;
                }
                Some(counts) => {
                    for (reason, (count, policy)) in counts {
                        let (start, rest) = shown(policy);
                        writeln!(f, "{count:>5} {reason}, as with {start}{rest}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// As much of a policy as a reader takes in: lists may have thousands of items.
fn shown(policy: &str) -> (&str, &'static str) {
    match policy.char_indices().nth(SHOWN) {
        Some((end, _)) => (&policy[..end], " …"),
        None => (policy, ""),
    }
}

const SHOWN: usize = 240;

fn example(examples: &mut Examples, reason: String, case: &Case) {
    let policy = case.policy.to_string();
    let (count, shortest) = examples.entry(reason).or_default();
    *count += 1;
    if shortest.is_empty() || policy.len() < shortest.len() {
        *shortest = policy;
    }
}

fn line(f: &mut fmt::Formatter<'_>, oracle: &str, reason: &str, counts: &Counts) -> fmt::Result {
    let Counts {
        policies,
        left,
        refused,
        pairs,
        differences,
    } = counts;
    writeln!(
        f,
        "{oracle:<10}{reason:<10}{policies:>9}{left:>6}{refused:>9}{pairs:>9}{differences:>13}"
    )
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.policies += other.policies;
        self.left += other.left;
        self.refused += other.refused;
        self.pairs += other.pairs;
        self.differences += other.differences;
    }
}
