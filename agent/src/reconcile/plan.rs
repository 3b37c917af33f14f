//! What to do next. Pure: what is known of a pod, what was observed and the time go in, a step comes out. `take.rs` takes the
//! steps, and observes.
//!
//! When in doubt, the plan keeps a namespace armed: traffic of a disarmed one bypasses its proxy.

use std::{net::IpAddr, time::Instant};

use sidestep_contract::Policy;
use sidestep_kernel::netns::Cookie;

use super::{Armed, Mode, Release, pod::Pod};
use crate::{
    pods::wanted::PodName,
    rules::{self, Allowed, BadIds, Facts, Rules},
};

/// What to do about a pod whose turn may have come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Visit {
    /// Nothing.
    Keep,
    /// Ask the kernel whether this namespace's link is attached.
    CheckLink(Cookie),
    /// Find its sandbox, and arm it.
    Find,
}

/// Whether a pod's turn has come, and how far it goes. `attached` is the answer to [`Visit::CheckLink`].
pub(super) fn visit(pod: &Pod, attached: Option<bool>, now: Instant, mode: &Mode) -> Visit {
    if !pod.is_due(now, mode) {
        return Visit::Keep;
    }
    match (&pod.armed, attached) {
        // Nothing is written where nothing changed; what may change unseen are addresses and name servers.
        _ if pod.is_study_due(now) => Visit::Find,
        // What was said of it meanwhile could not be done while it had no process.
        _ if pod.waiting.is_some() => Visit::Find,
        (None, _) | (Some(_), Some(false)) => Visit::Find,
        (Some(armed), None) => Visit::CheckLink(armed.cookie),
        (Some(_), Some(true)) => Visit::Keep,
    }
}

/// What to do about the place where a pod was looked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entrance {
    /// It has no sandbox yet: wait for one.
    Wait,
    /// Another pod is armed in that namespace, which has one record: leave it alone.
    Refuse(PodName),
    /// Look into the namespace.
    LookInside,
}

/// Whether a pod may be armed where it was found, if it was; `holder` is another pod that is armed in the same namespace.
pub(super) fn enter(found: Option<Cookie>, holder: Option<PodName>) -> Entrance {
    match (found, holder) {
        (None, _) => Entrance::Wait,
        (Some(_), Some(holder)) => Entrance::Refuse(holder),
        (Some(_), None) => Entrance::LookInside,
    }
}

/// What is wanted of an armed namespace.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// What must happen to its connections.
    pub policy: &'a Policy,
    /// How far its bytes may go past TCP.
    pub allowed: Allowed,
    /// Refuse raw TCP sockets.
    pub strict: bool,
}

/// What a look into a namespace showed.
#[derive(Clone, Debug)]
pub(super) struct Inside {
    pub(super) cookie: Cookie,
    pub(super) facts: Facts,
    /// The addresses that the cluster gave the pod, where somebody tells.
    pub(super) given: Option<Vec<IpAddr>>,
    /// The rules that the namespace's record points to.
    pub(super) record: Option<u32>,
    /// Whether inbound capture is attached. Asked only where the pod is known to be armed there.
    pub(super) attached: bool,
    /// A number for new rules.
    pub(super) fresh: u32,
}

/// What to do about a namespace that a pod may be armed in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: all of it is there and as it should be.
    Keep,
    /// Write these, then the record.
    Arm(Box<Rules>),
}

/// Whether the namespace has what is wanted. `before` is what this agent wrote for the pod last, wherever that was.
pub(super) fn arm(
    wish: &Wish<'_>,
    inside: &Inside,
    before: Option<&Armed>,
) -> Result<Step, BadIds> {
    let compile = |id| {
        let rules = rules::compile(wish.policy, &inside.facts, id, wish.strict)?;
        let given = inside.given.as_deref();
        Ok::<_, BadIds>(rules.allowing(wish.allowed).known_by(given))
    };
    if let Some(armed) = written_here(before, inside.cookie)
        && inside.attached
        && inside.record == Some(armed.rules.record.rules)
        && compile(armed.rules.record.rules)? == armed.rules
    {
        return Ok(Step::Keep);
    }
    Ok(Step::Arm(Box::new(compile(inside.fresh)?)))
}

/// What this agent wrote, if it was for this namespace: the sets of another are another's, even of the same pod.
pub(super) fn written_here(before: Option<&Armed>, cookie: Cookie) -> Option<&Armed> {
    before.filter(|armed| armed.cookie == cookie)
}

/// Whether the proxy of a pod is looked for once more, in the namespace in which the pod is armed: where it is not active
/// (`None`: that cannot be read), and where programs may have missed something because a hook was `lost` for a while.
pub(super) fn look_for_proxy(active: Option<bool>, lost: bool) -> bool {
    lost || active != Some(true)
}

/// What is to become of an armed namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays armed.
    Keep,
    /// Ask the kernel whether its link is attached, which shows that it exists.
    CheckLink,
    /// It is another pod's now: only the old sets go.
    HandOver,
    /// It is disarmed.
    Disarm,
}

/// Who wants an armed namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// The pod that is armed in it, which was found there.
    Present,
    /// The pod that is armed in it, which was not found there the last time.
    Absent,
    /// Another pod, found there after the one whose sets these are. It need not have armed it yet.
    Another {
        /// Whether the namespace's record points to these sets; `None` where it has none.
        points_here: Option<bool>,
    },
    /// No pod: it was removed, or is left alone.
    Nobody,
    /// No pod that is known, but one that cannot be found may be in it.
    Unknown,
}

/// Whether an armed namespace may be let go. `attached` is the answer to [`Fate::CheckLink`].
pub(super) const fn release(claim: Claim, attached: Option<bool>, when: Release) -> Fate {
    match (claim, when, attached) {
        (Claim::Present, _, _) => Fate::Keep,
        (Claim::Another { points_here }, _, _) => match points_here {
            Some(true) => Fate::Keep,
            Some(false) => Fate::HandOver,
            None => Fate::Disarm, // it is not armed: the rest of it goes
        },
        (Claim::Nobody, Release::Unwanted, _) => Fate::Disarm,
        (Claim::Absent | Claim::Nobody | Claim::Unknown, _, attached) => match attached {
            None => Fate::CheckLink,
            Some(true) => Fate::Keep,
            Some(false) => Fate::Disarm,
        },
    }
}
