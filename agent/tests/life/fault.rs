//! What goes wrong: one thing in a step, at any verb.

/// What goes wrong, from the first of some calls on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// So many calls fail before they did anything.
    Fails(u8),
    /// The call fails after it did half of its work.
    FailsHalf,
    /// The agent is killed before the call.
    Killed,
    /// The agent is killed in the middle of it.
    KilledHalf,
    /// The call succeeds; something else happens just before.
    Between(Interference),
}

/// What others do while the agent works.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Interference {
    /// The proxy of a namespace begins to listen.
    Listens(usize),
    /// A namespace goes away.
    Dies(usize),
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Works,
    Fails,
    FailsHalf,
    KilledHalf,
}

/// The end of an agent that is killed.
pub(crate) struct Kill;

pub(crate) fn kill() -> ! {
    std::panic::resume_unwind(Box::new(Kill))
}

/// Counts calls until it is time.
#[derive(Default)]
pub(crate) struct Fault {
    plan: Option<(u8, Kind)>,
    calls: u8,
    /// Something failed.
    pub(crate) hit: bool,
}

impl Fault {
    /// At the n-th call from now this happens.
    pub(crate) fn at(plan: Option<(u8, Kind)>) -> Self {
        Self {
            plan,
            calls: 0,
            hit: false,
        }
    }

    pub(crate) const fn is_planned(&self) -> bool {
        self.plan.is_some()
    }

    pub(crate) fn next(&mut self) -> (Verdict, Option<Interference>) {
        let Some((at, kind)) = self.plan else {
            return (Verdict::Works, None);
        };
        let call = self.calls;
        self.calls = self.calls.saturating_add(1);
        let here = call == at;
        let verdict = match kind {
            Kind::Fails(times) if call >= at && call - at < times => Verdict::Fails,
            Kind::FailsHalf if here => Verdict::FailsHalf,
            Kind::KilledHalf if here => Verdict::KilledHalf,
            Kind::Killed if here => kill(),
            Kind::Between(what) if here => return (Verdict::Works, Some(what)),
            _ => Verdict::Works,
        };
        self.hit |= verdict != Verdict::Works;
        (verdict, None)
    }
}
