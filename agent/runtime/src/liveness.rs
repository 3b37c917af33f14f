//! Liveness as a value: whoever goes round in a loop has a heartbeat, and a loop that stands still ends with a restart.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// All heartbeats.
#[derive(Clone, Debug, Default)]
pub struct Liveness(Arc<Mutex<BTreeMap<&'static str, Last>>>);

#[derive(Clone, Copy, Debug)]
struct Last {
    beat: Instant,
    limit: Duration,
}

/// One heartbeat, held by the loop.
#[derive(Debug)]
pub struct Heartbeat {
    name: &'static str,
    limit: Duration,
    all: Liveness,
}

impl Liveness {
    /// A new heartbeat, which may be silent for as long as `limit`. Names are unique.
    pub fn heartbeat(&self, name: &'static str, limit: Duration) -> Heartbeat {
        let heartbeat = Heartbeat {
            name,
            limit,
            all: self.clone(),
        };
        heartbeat.beat();
        heartbeat
    }

    /// Why it is not alive: every heartbeat that has been silent for too long.
    pub fn silent(&self) -> Vec<String> {
        let all = self.all();
        let silent = all
            .iter()
            .filter(|(_, last)| last.beat.elapsed() > last.limit);
        silent
            .map(|(name, last)| {
                let seconds = last.beat.elapsed().as_secs();
                format!("{name}: no sign of life for {seconds} s")
            })
            .collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<&'static str, Last>> {
        // A panic elsewhere leaves every entry whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heartbeat {
    /// It lives.
    pub fn beat(&self) {
        self.beat_before(self.limit);
    }

    /// It lives, and does something now that may take as long as this.
    pub fn beat_before(&self, limit: Duration) {
        let beat = Instant::now();
        self.all.all().insert(self.name, Last { beat, limit });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_alive_while_every_loop_goes_round() {
        let liveness = Liveness::default();
        assert!(liveness.silent().is_empty());
        let _slow = liveness.heartbeat("slow", Duration::from_hours(1));
        let _stuck = liveness.heartbeat("stuck", Duration::ZERO);
        while liveness.silent().is_empty() {
            std::hint::spin_loop();
        }
        assert_eq!(liveness.silent(), ["stuck: no sign of life for 0 s"]);
        let _revived = liveness.heartbeat("stuck", Duration::from_hours(1));
        assert!(liveness.silent().is_empty());
    }

    #[test]
    fn one_that_said_that_it_needs_longer_is_alive_until_it_beats_again() {
        let liveness = Liveness::default();
        let heartbeat = liveness.heartbeat("starting", Duration::ZERO);
        heartbeat.beat_before(Duration::from_hours(1));
        let past_the_usual_limit = Instant::now() + Duration::from_millis(1);
        while Instant::now() < past_the_usual_limit {
            std::thread::yield_now();
        }
        assert!(liveness.silent().is_empty());
        heartbeat.beat();
        while liveness.silent().is_empty() {
            std::thread::yield_now();
        }
    }
}
