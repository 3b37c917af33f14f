//! When the API server is asked. Thousands of agents lose it at the same moment and get it back at the same moment, so each
//! of them draws its own times: nobody turns not ready, or asks again, at the same time as all others.

use std::{ops::RangeInclusive, time::Duration};

use kube::runtime::utils::Backoff;
use tokio::time::Instant;

/// After which time the API server ends a watch, seconds; drawn for each request. Client libraries of Kubernetes ask for as much.
const WATCH: RangeInclusive<u32> = 300..=600;
/// A connection on which nothing comes for so long is dead. The API server tells a watch once a minute how far it is (a
/// bookmark).
pub(super) const QUIET: Duration = Duration::from_secs(150);
/// The pause after a failure is between nothing and this …
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// … twice as much each time, and at most this …
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// … and begins anew where nothing has failed for so long.
const CALM: Duration = Duration::from_mins(2);
/// Shorter is the time that a busy machine takes to answer.
const LEAST: Duration = Duration::from_secs(1);

/// How long the API server may be unreachable before the agent is not ready, and what follows for single requests.
#[derive(Clone, Copy, Debug)]
pub struct Patience(pub Duration);

impl Patience {
    /// This agent's own: up to half as long again.
    #[must_use]
    pub fn drawn(self) -> Self {
        Self(self.0.mul_f64(1.0 + fastrand::f64() / 2.0))
    }

    /// How long making a connection may take, TLS included.
    pub(super) fn connect(self) -> Duration {
        self.0 / 4
    }

    /// How long the first line of an answer may take, and how long what was sent may stay unacknowledged.
    pub(super) fn answer(self) -> Duration {
        (self.0 / 4).max(LEAST)
    }

    /// Between questions whether the other end of a quiet connection is there: by HTTP/2, and by TCP.
    pub(super) fn ping(self) -> Duration {
        (self.0 / 4).max(LEAST)
    }

    /// How long such a question may stay unanswered.
    pub(super) fn pong(self) -> Duration {
        (self.0 / 8).max(LEAST)
    }
}

/// What a request for a watch says, before a time is drawn for it.
pub(super) fn longest_watch() -> u32 {
    *WATCH.end()
}

/// A time for one watch, seconds.
pub(super) fn draw_watch() -> u32 {
    fastrand::u32(WATCH)
}

/// The pauses between attempts of a watch that fails.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    failures: u32,
    last: Option<Instant>,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self
            .last
            .replace(now)
            .is_some_and(|last| now >= last + CALM)
        {
            self.failures = 0;
        }
        let most = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(self.failures));
        self.failures = self.failures.saturating_add(1);
        Some(most.min(LONGEST_PAUSE).mul_f64(fastrand::f64()))
    }
}

impl Backoff for Pauses {
    /// Is called after each answer. One answer is no end of an outage: [`CALM`] is.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_below_their_bound() {
        let longest = |nth: usize| {
            let nth = |()| Pauses::default().nth(nth).expect("a pause without end");
            std::iter::repeat_n((), 2_000).map(nth).max()
        };
        for (nth, most) in [(0, 5), (1, 10), (2, 20), (3, 40), (4, 60), (40, 60)] {
            let (longest, most) = (longest(nth), Duration::from_secs(most));
            assert!(longest <= Some(most), "{nth}: {longest:?}");
            assert!(longest > Some(most.mul_f64(0.9)), "{nth}: {longest:?}");
        }
    }

    #[test]
    fn agents_differ() {
        let drawn: Vec<Duration> = (0..1_000)
            .map(|_| Patience(Duration::from_mins(2)).drawn().0)
            .collect();
        let (least, most) = (drawn.iter().min(), drawn.iter().max());
        assert!(least >= Some(&Duration::from_mins(2)) && least < Some(&Duration::from_secs(124)));
        assert!(most <= Some(&Duration::from_mins(3)) && most > Some(&Duration::from_secs(176)));
        let watches: Vec<u32> = (0..1_000).map(|_| draw_watch()).collect();
        assert!(watches.iter().all(|watch| WATCH.contains(watch)));
        assert!(watches.iter().any(|watch| *watch < 320));
        assert!(watches.iter().any(|watch| *watch > 580));
    }
}
