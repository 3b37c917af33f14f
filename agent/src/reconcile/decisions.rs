//! What the rows decided, added up over pods: the kernel counts for each armed namespace, and its count goes with it.

use std::collections::HashMap;

use sidestep_ebpf_common::Row;
use sidestep_kernel::netns::Cookie;

/// A number for each row, in the order of [`Row::ALL`].
pub type ByRow = [u64; Row::ALL.len()];

/// Sums, and what of each namespace is in them already.
#[derive(Debug, Default)]
pub(super) struct Decisions {
    seen: HashMap<Cookie, ByRow>,
    total: ByRow,
    /// From then on what is new was decided in this agent's time.
    begun: bool,
}

impl Decisions {
    /// Takes in what the kernel has counted for a namespace; the answer is what of it is new.
    pub(super) fn take(&mut self, cookie: Cookie, counts: &[(Row, u64)]) -> ByRow {
        let seen = self.seen.entry(cookie).or_default();
        let mut news = ByRow::default();
        for (row, count) in counts {
            let row = *row as usize;
            // A namespace that was armed anew counts from the start.
            news[row] = count.checked_sub(seen[row]).unwrap_or(*count);
            seen[row] = *count;
            if self.begun {
                self.total[row] = self.total[row].wrapping_add(news[row]);
            }
        }
        news
    }

    /// The first look at all namespaces is done. What it found may be of an earlier agent's time, whose sums had it.
    pub(super) const fn begin(&mut self) {
        self.begun = true;
    }

    /// Forgets a namespace that is not armed any more.
    pub(super) fn forget(&mut self, cookie: Cookie) {
        self.seen.remove(&cookie);
    }

    /// What each row decided since the first look.
    pub(super) const fn total(&self) -> ByRow {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Row = Row::OutRest;

    fn total(decisions: &Decisions) -> u64 {
        decisions.total()[ROW as usize]
    }

    #[test]
    fn what_is_there_at_the_first_look_is_news_and_in_no_sum() {
        let mut decisions = Decisions::default();
        assert_eq!(decisions.take(1, &[(ROW, 5)])[ROW as usize], 5);
        decisions.begin();
        assert_eq!(total(&decisions), 0);
        assert_eq!(decisions.take(1, &[(ROW, 7)])[ROW as usize], 2);
        assert_eq!(total(&decisions), 2);
    }

    #[test]
    fn sums_outlive_namespaces_and_one_that_is_armed_anew_counts_from_the_start() {
        let mut decisions = Decisions::default();
        decisions.begin();
        decisions.take(1, &[(ROW, 5)]);
        decisions.take(2, &[(ROW, 1)]);
        decisions.forget(1);
        assert_eq!(total(&decisions), 6);
        decisions.take(1, &[(ROW, 3)]);
        assert_eq!(total(&decisions), 9);
        assert_eq!(decisions.take(1, &[(ROW, 2)])[ROW as usize], 2);
        assert_eq!(total(&decisions), 11);
    }
}
