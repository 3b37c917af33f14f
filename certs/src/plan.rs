//! The next step. Pure: computed from the Secret's content, the trusted CAs and the time.
//!
//! A CA's life: **next** (it is in the bundle and signs nothing) → **current** (it signs) → **previous** (its key is gone;
//! it stays in the bundle until it expires). The way from next to current is open only once it has been in every bundle
//! for [`Lifetimes::overlap`], by the keeper's own steady clock: no replica's wall clock, and no record of when something
//! happened, is trusted for that. Previous CAs need no condition either: a replica that still serves a leaf of one, because
//! its watch hangs, is trusted for as long as the leaf is valid, since no leaf outlives its CA.
//!
//! If the Secret is lost or its leaf is invalid, the way is the same with [`Lifetimes::settle`] instead: replicas may
//! still have a valid leaf in memory, and the CA that signed it stays in the bundle.

use std::time::{Duration, SystemTime};

use crate::Lifetimes;
use crate::authority::{Authority, CannotMake, backdated};
use crate::cert::Cert;
use crate::holding::Holding;

/// What decides beside the content of the Secret.
#[derive(Clone, Debug)]
pub struct Wants<'a> {
    /// The server's DNS names.
    pub names: &'a [String],
    /// How long certificates live.
    pub lifetimes: Lifetimes,
}

/// Since when API servers trust the next CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trusted {
    /// No webhook configuration names the server: there is nobody to convince.
    NobodyAsks,
    /// It has been in every bundle for this long; zero if it is not in every one.
    For(Duration),
}

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait; look again at this time at the latest.
    Keep {
        /// When the next step is due.
        until: SystemTime,
    },
    /// Wait until API servers have trusted the next CA for this much longer.
    Wait {
        /// The time left.
        more: Duration,
    },
    /// Make the next CA, and put it into every bundle.
    AddNext,
    /// Let the next CA sign, and make a leaf of it.
    Promote,
    /// Make a leaf of the current CA.
    Renew,
    /// Drop previous CAs that have expired.
    Forget,
}

/// The next step.
pub fn plan(holding: &Holding, trusted: Trusted, now: SystemTime, wants: &Wants<'_>) -> Step {
    let Wants { names, lifetimes } = wants;
    if holding.previous.iter().any(|cert| cert.not_after < now) {
        return Step::Forget;
    }
    let serves = is_served_well(holding, now, names);
    let current = holding
        .current
        .as_ref()
        .filter(|ca| ca.cert.is_valid_at(now));
    let leaf_due = current.map(|ca| leaf_due(holding, ca, now, *lifetimes));
    if holding
        .next
        .as_ref()
        .is_some_and(|ca| ca.cert.is_valid_at(now))
    {
        let needed = if serves {
            lifetimes.overlap()
        } else {
            lifetimes.settle()
        };
        return match trusted {
            Trusted::NobodyAsks => Step::Promote,
            Trusted::For(long) if long >= needed => Step::Promote,
            Trusted::For(_) if leaf_due.is_some_and(|due| due <= now) => Step::Renew,
            Trusted::For(long) => Step::Wait {
                more: needed.saturating_sub(long),
            },
        };
    }
    let Some((current, leaf_due)) = current.zip(leaf_due) else {
        return Step::AddNext;
    };
    let ca_due = due(&current.cert, now, lifetimes.authority());
    if ca_due <= now {
        return Step::AddNext;
    }
    if !serves || leaf_due <= now {
        return Step::Renew;
    }
    let expiries = holding.previous.iter().map(|cert| cert.not_after);
    let until = expiries.fold(ca_due.min(leaf_due), SystemTime::min);
    Step::Keep { until }
}

/// The content of the Secret after a step.
pub fn take(
    step: Step,
    holding: &Holding,
    now: SystemTime,
    wants: &Wants<'_>,
) -> Result<Holding, CannotMake> {
    let mut held = holding.clone();
    held.faults.clear();
    let Wants { names, lifetimes } = wants;
    match step {
        Step::Keep { .. } | Step::Wait { .. } => {}
        Step::Forget => held.previous.retain(|cert| cert.not_after >= now),
        Step::Renew => {
            if let Some(current) = &held.current {
                held.leaf = Some(current.sign(names, now, *lifetimes)?);
            }
        }
        Step::AddNext => held.next = Some(Authority::make(now, *lifetimes)?),
        Step::Promote => {
            let retired = held.current.take().map(|ca| ca.cert);
            let retired = retired.filter(|cert| cert.not_after >= now);
            held.previous.extend(retired);
            held.current = held.next.take();
            if let Some(current) = &held.current {
                held.leaf = Some(current.sign(names, now, *lifetimes)?);
            }
        }
    }
    Ok(held)
}

/// Whether API servers with a right clock accept the leaf.
fn is_served_well(holding: &Holding, now: SystemTime, names: &[String]) -> bool {
    let Some(leaf) = &holding.leaf else {
        return false;
    };
    let good = |ca: &Cert| ca.is_valid_at(now) && leaf.cert.is_signed_by(ca);
    leaf.cert.is_valid_at(now)
        && names.iter().all(|name| leaf.cert.names.contains(name))
        && holding.authorities().any(good)
}

/// When the leaf must be replaced: at once, unless `current` signed it.
fn leaf_due(
    holding: &Holding,
    current: &Authority,
    now: SystemTime,
    lifetimes: Lifetimes,
) -> SystemTime {
    let leaf = holding.leaf.as_ref();
    let leaf = leaf.filter(|leaf| leaf.cert.is_signed_by(&current.cert));
    leaf.map_or(now, |leaf| due(&leaf.cert, now, lifetimes.leaf()))
}

/// At two thirds of a certificate's life; at once if it would live longer than one that is made now, which happens when
/// the lifetime is set shorter or a clock was ahead.
fn due(cert: &Cert, now: SystemTime, life: Duration) -> SystemTime {
    let longest = now + life + backdated(life);
    if cert.not_after > longest {
        now
    } else {
        cert.due()
    }
}
