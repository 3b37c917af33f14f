//! What the tests share.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sidestep_certs::Lifetimes;
use sidestep_certs::holding::{Data, Holding};
use sidestep_certs::plan::{Step, Wants, take};

pub(crate) const DAY: Duration = Duration::from_hours(24);
pub(crate) const NAMES: [&str; 1] = ["sidestep-webhook.sidestep-system.svc"];

/// A moment; X.509 knows whole seconds only.
pub(crate) fn start() -> SystemTime {
    UNIX_EPOCH + Duration::from_hours(500_000)
}

/// The overlap but for a second.
pub(crate) fn nearly_overlapped() -> Duration {
    Duration::from_secs(lifetimes().overlap().as_secs() - 1)
}

pub(crate) fn lifetimes() -> Lifetimes {
    Lifetimes::new(DAY * 90)
}

pub(crate) fn wants(names: &[String]) -> Wants<'_> {
    Wants {
        names,
        lifetimes: lifetimes(),
    }
}

pub(crate) fn stepped(step: Step, held: &Holding, now: SystemTime) -> Holding {
    let names = NAMES.map(str::to_owned);
    take(step, held, now, &wants(&names)).expect("a step")
}

/// A CA and its leaf, made at that moment.
pub(crate) fn begun(now: SystemTime) -> Holding {
    let held = stepped(Step::AddNext, &Holding::default(), now);
    stepped(Step::Promote, &held, now)
}

/// What is read without complaint.
pub(crate) fn holding(data: &Data) -> Holding {
    let held = Holding::read(data);
    assert_eq!(held.faults, []);
    held
}
