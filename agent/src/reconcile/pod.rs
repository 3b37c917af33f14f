//! What is known of one pod, and when it is looked at again.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use sidestep_kernel::netns::Cookie;

use super::{ArmError, Armed, Mode, pace::Pace};
use crate::pods::wanted::{Entry, Place, PodName, Wanted};

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// One pod.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) entry: Entry,
    /// Its namespace, as far as it could be found; perhaps armed by an earlier agent.
    pub(super) cookie: Option<Cookie>,
    pub(super) armed: Option<Armed>,
    /// Another version of Sidestep that captures the namespace in which it was found.
    pub(super) keeper: Option<String>,
    pub(super) failure: Option<Failure>,
    /// How long programming it took.
    pub(super) took: Duration,
    /// From when its namespace was seen until it was armed.
    pub(super) reaction: Option<Duration>,
    /// Since when it is looked for in vain.
    pub(super) waiting: Option<Instant>,
    /// Of looks at it because one of its processes was seen.
    pub(super) pace: Pace,
    /// Whether it was told that it waits for too long.
    told: bool,
    /// When its link is looked at next …
    look: Instant,
    /// … and when the inside of its namespace.
    study: Instant,
}

/// A pod that could not be armed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: String,
    /// The same in a word.
    pub(super) reason: &'static str,
    next: Instant,
    wait: Duration,
}

impl Pod {
    /// A pod of which something is said for the first time.
    pub(super) fn new(name: &PodName, entry: &Entry, now: Instant, mode: &Mode) -> Self {
        Self {
            entry: entry.clone(),
            cookie: None,
            armed: None,
            keeper: None,
            failure: None,
            took: Duration::ZERO,
            reaction: None,
            waiting: None,
            pace: Pace::default(),
            told: false,
            look: now,
            study: now + spread(name, mode.study),
        }
    }

    /// The namespace in which it is armed.
    pub(super) fn armed_in(&self) -> Option<Cookie> {
        self.armed.as_ref().map(|armed| armed.cookie)
    }

    /// Follows a change. What was armed of another pod, which only had the same name, is handed out.
    pub(super) fn change(&mut self, entry: &Entry, now: Instant) -> Option<Armed> {
        let is_another = self.is_another(entry);
        self.entry.clone_from(entry);
        self.failure = None;
        if self.has_ended() {
            self.look = now;
        }
        if !is_another {
            return None;
        }
        self.cookie = None;
        self.keeper = None;
        self.waiting = None;
        self.told = false;
        self.armed.take()
    }

    fn is_another(&self, entry: &Entry) -> bool {
        match (&self.entry, entry) {
            (Ok(old), Ok(new)) => match (&old.place, &new.place) {
                (Place::Cgroup(old), Place::Cgroup(new)) => old != new,
                (Place::Named(_), _) | (_, Place::Named(_)) => false,
            },
            (Ok(old), Err(_)) => matches!(old.place, Place::Cgroup(_)),
            (Err(_), _) => false,
        }
    }

    fn has_ended(&self) -> bool {
        matches!(self.entry, Ok(Wanted { ended: true, .. }))
    }

    /// Whether it is to be looked at.
    pub(super) fn is_due(&self, now: Instant, mode: &Mode) -> bool {
        match (&self.entry, &self.failure) {
            (Err(_), _) => false,
            (Ok(_), Some(failure)) => failure.next <= now,
            (Ok(_), None) => self.look <= now || self.is_missed(now, mode.patience),
        }
    }

    /// Whether a look is to be thorough.
    pub(super) fn is_study_due(&self, now: Instant) -> bool {
        self.study <= now || self.failure.is_some()
    }

    /// Puts the next looks off, after one that is done.
    pub(super) fn looked(&mut self, began: Instant, mode: &Mode) {
        // The namespace of a pod that has ended goes soon, and nothing tells of it: every pass looks.
        let goes_soon = self.has_ended() && self.armed.is_some();
        self.look = if goes_soon { began } else { began + mode.look };
        if self.study <= began {
            self.study = began + mode.study;
        }
    }

    /// When to try again.
    pub(super) fn retry(&self) -> Option<Instant> {
        self.failure.as_ref().map(|failure| failure.next)
    }

    /// Puts the next attempt off where one could not even begin.
    pub(super) fn retry_later(&mut self, now: Instant) {
        if let Some(failure) = &mut self.failure {
            failure.next = now + failure.wait;
        }
    }

    /// Notes a failure; whether it is news.
    pub(super) fn fail(&mut self, error: &ArmError, now: Instant) -> bool {
        let before = self.failure.take();
        let wait = before
            .as_ref()
            .map_or(FIRST_RETRY, |f| (f.wait * 2).min(LAST_RETRY));
        let reason = error.reason();
        let error = error.to_string();
        let news = before.is_none_or(|before| before.error != error);
        self.failure = Some(Failure {
            error,
            reason,
            next: now + wait,
            wait,
        });
        news
    }

    /// Notes that it has no sandbox; nothing is missing of a pod that has ended.
    pub(super) fn waits(&mut self, now: Instant) {
        if self.has_ended() {
            self.waiting = None;
        } else {
            self.waiting.get_or_insert(now);
        }
    }

    /// Whether it is time to say that it waits, which is done once.
    pub(super) fn waits_too_long(&mut self, now: Instant, patience: Duration) -> bool {
        let missed = self.is_missed(now, patience);
        self.told |= missed;
        missed
    }

    /// Whether it was said that it waits, and it still does.
    pub(super) const fn is_overdue(&self) -> bool {
        self.told && self.waiting.is_some()
    }

    /// It waits for too long, and nobody was told.
    fn is_missed(&self, now: Instant, patience: Duration) -> bool {
        let waits = |since| now.saturating_duration_since(since);
        !self.told && self.waiting.is_some_and(|since| waits(since) >= patience)
    }
}

/// A part of an interval that differs from pod to pod, so that not all are looked at at once.
fn spread(name: &PodName, interval: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let part = hasher.finish() % 1000;
    interval.mul_f64(f64::from(u16::try_from(part).unwrap_or(0)) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sidestep_contract::RawSockets;

    use crate::{pods::wanted::PodUid, probe::policy, rules::Allowed};

    fn wanted() -> Wanted {
        Wanted {
            place: Place::Cgroup(
                PodUid::new("0f3a6a0e-1c2b-4d5e-8f90-abcdef012345").expect("a uid"),
            ),
            policy: policy(1337).expect("a policy"),
            allowed: Allowed::default(),
            raw_sockets: RawSockets::default(),
            name_servers: Vec::new(),
            addresses: Vec::new(),
            ended: false,
        }
    }

    #[test]
    fn a_pod_that_waits_is_looked_at_when_patience_ends_whenever_it_was_looked_at_before() {
        let name = PodName {
            namespace: "demo".to_owned(),
            name: "never".to_owned(),
        };
        let patience = Duration::from_secs(2);
        let mode = Mode::node(true, patience);
        let begin = Instant::now();
        let mut pod = Pod::new(&name, &Ok(wanted()), begin, &mode);
        pod.waits(begin);
        pod.looked(begin, &mode);
        assert!(!pod.is_due(begin + patience / 2, &mode));
        assert!(!pod.waits_too_long(begin + patience / 2, patience));
        let end = begin + patience;
        assert!(pod.is_due(end, &mode));
        assert!(pod.waits_too_long(end, patience));
        // It is told once.
        assert!(!pod.is_due(end + patience, &mode));
        assert!(!pod.waits_too_long(end + patience, patience));
    }
}
