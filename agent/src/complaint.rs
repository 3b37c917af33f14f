//! When a trouble of the node is worth an Event: once it has lasted, and if nobody was told of it lately.

use std::time::{Duration, Instant};

/// Longer than what passes by itself, such as an agent that is about to end and holds the lock.
const LASTS: Duration = Duration::from_secs(5);
/// Between Events with the same words. The API server forgets them after an hour.
const AGAIN: Duration = Duration::from_mins(10);

/// What is known of it.
#[derive(Debug, Default)]
pub(crate) struct Complaint {
    since: Option<Instant>,
    told: Option<(Instant, String)>,
}

impl Complaint {
    /// Takes what is wrong now, and returns it if it is to be told.
    pub(crate) fn tells<'a>(&mut self, why: Option<&'a str>, now: Instant) -> Option<&'a str> {
        let Some(why) = why else {
            self.since = None;
            return None;
        };
        let since = *self.since.get_or_insert(now);
        let is_known = self
            .told
            .as_ref()
            .is_some_and(|(at, told)| told == why && now.saturating_duration_since(*at) < AGAIN);
        if is_known || now.saturating_duration_since(since) < LASTS {
            return None;
        }
        self.told = Some((now, why.to_owned()));
        Some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_told_once_and_what_passes_is_not() {
        let start = Instant::now();
        let mut complaint = Complaint::default();
        let mut tells = |why, seconds| {
            let told = complaint.tells(why, start + Duration::from_secs(seconds));
            assert!(told.is_none() || told == why);
            told.is_some()
        };
        assert!(!tells(Some("a"), 0));
        assert!(!tells(None, 3));
        assert!(!tells(Some("a"), 6), "it passed meanwhile");
        assert!(!tells(Some("b"), 10));
        assert!(tells(Some("b"), 11), "the node is not well");
        assert!(!tells(Some("b"), 60));
        assert!(tells(Some("c"), 61), "another reason");
        assert!(!tells(None, 62));
        assert!(!tells(Some("c"), 70));
        assert!(!tells(Some("c"), 100), "told lately");
        assert!(tells(Some("c"), 700));
    }
}
