//! Election of a leader by a `Lease`: one replica at a time, and rather none for a while than two.
//!
//! No clock is compared with another's. A candidate measures, by its own steady clock, for how long it has seen the same
//! record; the holder stops leading by its own, well before others may take over. What is written as times is for people.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

/// How long other candidates wait for a holder that does not renew.
pub const DURATION: Duration = Duration::from_secs(15);

/// How long a holder leads after its last renewal. The rest of [`DURATION`] allows for clocks that run at different speeds,
/// and for requests that are on their way.
pub const LEADS: Duration = Duration::from_secs(10);

/// Time between two reads of the lease.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// What to do about the lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Move {
    /// Write this, on condition that nobody has written since the read.
    Write(LeaseSpec),
    /// Another candidate holds it.
    StandBy,
}

/// The lease as one replica sees it.
#[derive(Debug)]
pub struct Candidate {
    identity: String,
    /// The record that was read last, and since when it has been the same.
    seen: Option<(LeaseSpec, Instant)>,
    /// When the last successful renewal was begun.
    renewed: Option<Instant>,
}

impl Candidate {
    /// The view of the replica with this name, which no other replica has.
    pub const fn new(identity: String) -> Self {
        Self {
            identity,
            seen: None,
            renewed: None,
        }
    }

    /// What to do after reading this record.
    pub fn next(&mut self, lease: Option<&LeaseSpec>, now: Instant) -> Move {
        let empty = LeaseSpec::default();
        let lease = lease.unwrap_or(&empty);
        if self.seen.as_ref().is_none_or(|(seen, _)| seen != lease) {
            self.seen = Some((lease.clone(), now));
        }
        let holder = lease.holder_identity.as_deref().unwrap_or_default();
        let since = self.seen.as_ref().map_or(now, |(_, since)| *since);
        if !holder.is_empty() && holder != self.identity && now < since + duration_of(lease) {
            self.renewed = None;
            return Move::StandBy;
        }
        Move::Write(self.held(lease))
    }

    /// Notes that the write which was decided at `begun` succeeded.
    pub fn wrote(&mut self, begun: Instant) {
        self.renewed = Some(begun);
    }

    /// Notes that another candidate wrote first.
    pub fn lost(&mut self) {
        self.renewed = None;
    }

    /// Until when this replica leads, unless it renews.
    pub fn leads_until(&self) -> Option<Instant> {
        self.renewed.map(|begun| begun + LEADS)
    }

    /// The record that lets another candidate lead at once, if this replica holds the lease.
    pub fn released(&self, lease: &LeaseSpec) -> Option<LeaseSpec> {
        let is_holder = lease.holder_identity.as_ref() == Some(&self.identity);
        is_holder.then(|| LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            ..lease.clone()
        })
    }

    fn held(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let is_holder = before.holder_identity.as_ref() == Some(&self.identity);
        let transitions = before.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: before
                .acquire_time
                .clone()
                .filter(|_| is_holder)
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions.saturating_add(i32::from(!is_holder))),
            ..before.clone()
        }
    }
}

/// The duration that the holder promised. A record may be written by hand, so it is at least ours, and bounded.
fn duration_of(lease: &LeaseSpec) -> Duration {
    let seconds = lease.lease_duration_seconds.unwrap_or_default();
    let promised = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    promised.clamp(DURATION, 4 * DURATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn write(candidate: &mut Candidate, lease: Option<&LeaseSpec>, now: Instant) -> LeaseSpec {
        match candidate.next(lease, now) {
            Move::Write(spec) => spec,
            Move::StandBy => panic!("{candidate:?} stands by"),
        }
    }

    #[test]
    fn a_lease_that_nobody_holds_is_taken_and_renewed() {
        let now = Instant::now();
        let mut one = Candidate::new("one".to_owned());
        let lease = write(&mut one, None, now);
        assert_eq!(lease.holder_identity.as_deref(), Some("one"));
        assert_eq!(lease.lease_transitions, Some(1));
        assert_eq!(one.leads_until(), None, "not before it is written");
        one.wrote(now);
        assert_eq!(one.leads_until(), Some(now + LEADS));
        let again = write(&mut one, Some(&lease), now + second(5));
        assert_eq!(again.lease_transitions, Some(1));
        assert_eq!(again.acquire_time, lease.acquire_time);
    }

    #[test]
    fn others_wait_until_they_have_seen_the_same_record_for_its_whole_duration() {
        let now = Instant::now();
        let lease = write(&mut Candidate::new("one".to_owned()), None, now);
        let mut two = Candidate::new("two".to_owned());
        // Whatever times are written, and however long ago: it counts from the first look.
        for passed in [0, 5, 14] {
            let now = now + second(1000 + passed);
            assert_eq!(two.next(Some(&lease), now), Move::StandBy);
        }
        let taken = write(&mut two, Some(&lease), now + second(1015));
        assert_eq!(taken.holder_identity.as_deref(), Some("two"));
        assert_eq!(taken.lease_transitions, Some(2));
    }

    #[test]
    fn a_holder_that_renews_is_not_replaced() {
        let mut now = Instant::now();
        let mut one = Candidate::new("one".to_owned());
        let mut two = Candidate::new("two".to_owned());
        let mut lease = write(&mut one, None, now);
        for _ in 0..100 {
            now += second(5);
            assert_eq!(two.next(Some(&lease), now), Move::StandBy);
            lease = write(&mut one, Some(&lease), now);
        }
    }

    #[test]
    fn a_released_lease_is_taken_at_once_and_only_the_holder_releases() {
        let now = Instant::now();
        let mut one = Candidate::new("one".to_owned());
        let mut two = Candidate::new("two".to_owned());
        let lease = write(&mut one, None, now);
        assert_eq!(two.released(&lease), None);
        let free = one.released(&lease).expect("it holds it");
        write(&mut two, Some(&free), now);
    }

    #[test]
    fn a_lease_written_by_hand_blocks_nobody_for_ever() {
        let now = Instant::now();
        let lease = LeaseSpec {
            holder_identity: Some("somebody".to_owned()),
            lease_duration_seconds: Some(i32::MAX),
            ..LeaseSpec::default()
        };
        let mut one = Candidate::new("one".to_owned());
        assert_eq!(one.next(Some(&lease), now), Move::StandBy);
        write(&mut one, Some(&lease), now + second(60));
        let negative = LeaseSpec {
            lease_duration_seconds: Some(-5),
            ..lease
        };
        assert_eq!(one.next(Some(&negative), now + second(61)), Move::StandBy);
    }

    /// An API server, and candidates that are paused, delayed and cut off at random, whose clocks have nothing to do with
    /// each other.
    #[test]
    fn never_do_two_lead_at_once() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut dice = move |sides: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % sides
        };
        let origin = Instant::now();
        let mut stored: (u64, Option<LeaseSpec>) = (0, None);
        let mut candidates: Vec<_> = (0..3)
            .map(|n| (Candidate::new(n.to_string()), 0_u64, None))
            .collect();
        let mut led = [0_u64; 3];
        for tick in 0..200_000_u64 {
            let now = origin + Duration::from_millis(tick * 100);
            for (candidate, wakes, pending) in &mut candidates {
                if tick < *wakes {
                    continue;
                }
                *wakes = tick + if dice(50) == 0 { dice(400) } else { dice(30) };
                match pending.take() {
                    // What was decided earlier arrives now.
                    Some((version, begun, spec)) if version == stored.0 => {
                        stored = (version + 1, Some(spec));
                        candidate.wrote(begun);
                    }
                    Some(_) => candidate.lost(),
                    None => {
                        if let Move::Write(spec) = candidate.next(stored.1.as_ref(), now) {
                            *pending = Some((stored.0, now, spec));
                        }
                    }
                }
            }
            let leading = candidates
                .iter()
                .enumerate()
                .filter(|(_, (c, _, _))| c.leads_until().is_some_and(|until| now < until));
            let leading: Vec<_> = leading.map(|(n, _)| n).collect();
            assert!(leading.len() <= 1, "{leading:?} at {tick}");
            for n in leading {
                led[n] += 1;
            }
        }
        assert!(
            led.iter().all(|ticks| *ticks > 1000),
            "each had its turn: {led:?}"
        );
    }
}
