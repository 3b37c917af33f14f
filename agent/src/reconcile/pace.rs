//! How often something is done that others ask for.

use std::time::{Duration, Instant};

/// Lets something be done at once, but then not again before a while has passed: what came too early is put off, and none of
/// it is forgotten.
#[derive(Debug, Default)]
pub(super) struct Pace {
    done: Option<Instant>,
    /// From when it may be done, and the time of the first sighting that asked for it.
    put_off: Option<(Instant, u64)>,
}

impl Pace {
    /// Whether it may be done `now`. Else it is due when `interval` has passed since it was done last; `at` is remembered.
    pub(super) fn allows(&mut self, now: Instant, interval: Duration, at: u64) -> bool {
        let next = self.done.map_or(now, |done| done + interval);
        if next > now {
            self.put_off.get_or_insert((next, at));
            return false;
        }
        self.done = Some(now);
        self.put_off = None;
        true
    }

    /// When what was put off is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.put_off.map(|(due, _)| due)
    }

    /// What was put off until now, if that is so: the time of the sighting.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<u64> {
        let (_, at) = self.put_off.take_if(|(due, _)| *due <= now)?;
        self.done = Some(now);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_is_done_at_once_and_the_others_together_a_while_later() {
        let mut pace = Pace::default();
        let begin = Instant::now();
        let after = |ms| begin + Duration::from_millis(ms);
        assert!(pace.allows(begin, INTERVAL, 1));
        assert_eq!(pace.due(), None);
        for ms in 1..999 {
            assert!(!pace.allows(after(ms), INTERVAL, ms));
        }
        assert_eq!(pace.due(), Some(after(1000)));
        assert_eq!(pace.take_due(after(999)), None);
        assert_eq!(pace.take_due(after(1000)), Some(1));
        assert_eq!((pace.due(), pace.take_due(after(5000))), (None, None));
        // It was done again, so what follows waits again.
        assert!(!pace.allows(after(1999), INTERVAL, 7));
        assert_eq!(pace.due(), Some(after(2000)));
    }

    #[test]
    fn who_comes_after_the_while_does_what_was_put_off_too() {
        let mut pace = Pace::default();
        let begin = Instant::now();
        assert!(pace.allows(begin, INTERVAL, 1));
        assert!(!pace.allows(begin, INTERVAL, 2));
        assert!(pace.allows(begin + INTERVAL, INTERVAL, 3));
        assert_eq!(pace.due(), None);
    }

    #[test]
    fn a_shorter_interval_is_not_held_up_by_a_longer_one() {
        let mut pace = Pace::default();
        let begin = Instant::now();
        assert!(pace.allows(begin, INTERVAL, 1));
        assert!(pace.allows(begin + INTERVAL / 10, INTERVAL / 20, 2));
    }
}
