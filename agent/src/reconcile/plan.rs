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
    rules::{self, Allowed, CompileError, Facts, Rules},
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
    /// Another version of Sidestep captures it: leave it to that one.
    Leave(String),
    /// Look into the namespace.
    LookInside,
}

/// Whether a pod may be armed where it was found, if it was; `keeper` is another version of Sidestep that captures the namespace,
/// `holder` another pod that is armed in it.
pub(super) fn enter(
    found: Option<Cookie>,
    keeper: Option<String>,
    holder: Option<PodName>,
) -> Entrance {
    match (found, keeper, holder) {
        (None, ..) => Entrance::Wait,
        (Some(_), Some(keeper), _) => Entrance::Leave(keeper),
        (Some(_), None, Some(holder)) => Entrance::Refuse(holder),
        (Some(_), None, None) => Entrance::LookInside,
    }
}

/// What is wanted of an armed namespace.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// What must happen to its connections.
    pub policy: &'a Policy,
    /// How far its bytes may go past TCP.
    pub allowed: Allowed,
    /// The pod's Kubernetes namespace; empty where it has none.
    pub namespace: &'a str,
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
) -> Result<Step, CompileError> {
    let compile = |id| {
        let rules = rules::compile(wish.policy, &inside.facts, id, wish.strict)?;
        let given = inside.given.as_deref();
        let rules = rules.allowing(wish.allowed).of(wish.namespace);
        Ok::<_, CompileError>(rules.known_by(given))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sidestep_contract::RawSockets;

    use super::*;
    use crate::{
        pods::wanted::{Place, PodUid, Wanted},
        probe::policy,
        reconcile::ArmError,
    };

    const HERE: Cookie = 7;
    const THERE: Cookie = 8;
    const MODE: Mode = Mode::node(true, Duration::from_secs(20));

    fn name() -> PodName {
        PodName {
            namespace: "demo".to_owned(),
            name: "web".to_owned(),
        }
    }

    fn wanted() -> Wanted {
        let uid = PodUid::new("0f3a6a0e-1c2b-4d5e-8f90-abcdef012345").expect("a uid");
        Wanted {
            place: Place::Cgroup(uid),
            policy: policy(1337).expect("a policy"),
            allowed: Allowed::default(),
            raw_sockets: RawSockets::default(),
            name_servers: Vec::new(),
            addresses: Vec::new(),
            ended: false,
        }
    }

    fn inside(cookie: Cookie, record: Option<u32>) -> Inside {
        Inside {
            cookie,
            facts: Facts {
                cookie,
                addresses: vec![[10, 0, 0, 7].into()],
                source4: None,
                source6: None,
                name_servers: Vec::new(),
            },
            given: None,
            record,
            attached: record.is_some(),
            fresh: 9,
        }
    }

    /// Armed with rules 9.
    fn armed(cookie: Cookie, policy: &Policy) -> Armed {
        match arm(&wish(policy), &inside(cookie, None), None).expect("rules") {
            Step::Arm(rules) => Armed {
                cookie,
                rules: *rules,
            },
            Step::Keep => panic!("nothing is there"),
        }
    }

    fn wish(policy: &Policy) -> Wish<'_> {
        Wish {
            policy,
            allowed: Allowed::default(),
            namespace: "default",
            strict: true,
        }
    }

    fn is_kept(policy: &Policy, inside: &Inside, before: Option<&Armed>) -> bool {
        arm(&wish(policy), inside, before).expect("rules") == Step::Keep
    }

    #[test]
    fn what_is_as_it_should_be_is_kept_and_everything_else_armed() {
        let wanted = policy(1337).expect("a policy");
        let before = armed(HERE, &wanted);
        let there = inside(HERE, Some(9));
        assert!(is_kept(&wanted, &there, Some(&before)));

        assert!(!is_kept(&wanted, &there, None), "an earlier agent's");
        let elsewhere = armed(THERE, &wanted);
        assert!(!is_kept(&wanted, &there, Some(&elsewhere)));
        assert!(!is_kept(
            &policy(0).expect("a policy"),
            &there,
            Some(&before)
        ));
        for wrong in [
            inside(HERE, None),
            inside(HERE, Some(8)),
            Inside {
                attached: false,
                ..there.clone()
            },
            Inside {
                facts: Facts {
                    addresses: Vec::new(),
                    ..there.facts.clone()
                },
                ..there.clone()
            },
        ] {
            assert!(!is_kept(&wanted, &wrong, Some(&before)), "{wrong:?}");
        }
    }

    #[test]
    fn a_pod_is_visited_when_its_turn_has_come_and_looked_into_when_something_may_have_changed() {
        let begin = Instant::now();
        let mut pod = Pod::new(&name(), &Ok(wanted()), begin, &MODE);
        assert_eq!(visit(&pod, None, begin, &MODE), Visit::Find, "not armed");

        pod.armed = Some(armed(HERE, &policy(1337).expect("a policy")));
        let check = Visit::CheckLink(HERE);
        let study = begin + MODE.study;
        let of = |pod: &Pod, attached, at| visit(pod, attached, at, &MODE);
        assert_eq!(of(&pod, None, study), Visit::Find);
        pod.looked(study, &MODE);
        assert_eq!(of(&pod, None, study + MODE.look / 2), Visit::Keep);
        let look = study + MODE.look;
        assert_eq!(of(&pod, None, look), check);
        assert_eq!(of(&pod, Some(true), look), Visit::Keep);
        assert_eq!(of(&pod, Some(false), look), Visit::Find);

        pod.waits(look);
        assert_eq!(of(&pod, None, look), Visit::Find);
        pod.waiting = None;
        let error = ArmError::Taken {
            netns: String::new(),
            other: String::new(),
        };
        pod.fail(&error, look);
        assert_eq!(of(&pod, None, look), Visit::Keep, "not so soon");
        let retry = pod.retry().expect("another attempt");
        assert_eq!(of(&pod, None, retry), Visit::Find);
    }

    #[test]
    fn one_namespace_is_one_pods() {
        assert_eq!(enter(None, None, None), Entrance::Wait);
        assert_eq!(enter(Some(HERE), None, None), Entrance::LookInside);
        let refuse = Entrance::Refuse(name());
        assert_eq!(enter(Some(HERE), None, Some(name())), refuse);
    }

    #[test]
    fn a_namespace_that_another_version_captures_stays_its_own() {
        let other = || Some("v9".to_owned());
        for holder in [None, Some(name())] {
            let leave = Entrance::Leave("v9".to_owned());
            assert_eq!(enter(Some(HERE), other(), holder), leave);
        }
    }

    #[test]
    fn on_a_node_nothing_is_disarmed_whose_link_is_not_known_to_be_gone() {
        let another = |points_here| Claim::Another { points_here };
        for claim in [Claim::Absent, Claim::Nobody, Claim::Unknown] {
            let of = |attached| release(claim, attached, Release::Gone);
            assert_eq!(of(None), Fate::CheckLink, "{claim:?}");
            assert_eq!(of(Some(true)), Fate::Keep, "{claim:?}");
            assert_eq!(of(Some(false)), Fate::Disarm, "{claim:?}");
        }
        for (claim, fate) in [
            (Claim::Present, Fate::Keep),
            (another(Some(true)), Fate::Keep),
            (another(Some(false)), Fate::HandOver),
            (another(None), Fate::Disarm),
        ] {
            for attached in [None, Some(true), Some(false)] {
                for when in [Release::Gone, Release::Unwanted] {
                    assert_eq!(release(claim, attached, when), fate, "{claim:?}");
                }
            }
        }
    }

    #[test]
    fn with_pod_files_only_what_nobody_wants_goes_while_it_lives() {
        let of = |claim| release(claim, Some(true), Release::Unwanted);
        assert_eq!(of(Claim::Nobody), Fate::Disarm);
        assert_eq!(of(Claim::Absent), Fate::Keep);
        assert_eq!(of(Claim::Unknown), Fate::Keep);
    }
}
