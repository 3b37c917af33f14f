//! Pods, and what was reported of them.

use std::collections::BTreeMap;
use std::time::Duration;

use sidestep_contract::waiting::Place;

use crate::check::facts::{EventFact, Facts, listed};
use crate::check::finding::Verdict;
use crate::cluster::{Seen, SeenPod};

/// How long a gate takes to open, at most, where all is well.
const GATE: Duration = Duration::from_mins(1);

/// How far back Events are looked at.
const LATELY: Duration = Duration::from_hours(1);

/// No accelerated pod waits.
pub(in crate::check) fn waiting(facts: &Facts) -> Verdict {
    let pods = match &facts.pods {
        Err(why) => return Verdict::unknown(why),
        Ok(pods) => pods,
    };
    let name = |pod: &SeenPod| format!("{}/{}", pod.namespace, pod.name);
    let gates = pods
        .iter()
        .filter(|pod| matches!(pod.seen, Seen::Waits(Place::Gate(_))));
    let is_long = |pod: &&SeenPod| {
        let made = pod.made.as_ref();
        made.is_some_and(|made| facts.age(made.0) > GATE)
    };
    let (long, short): (Vec<_>, Vec<_>) = gates.partition(is_long);
    let nowhere = pods
        .iter()
        .filter(|pod| matches!(pod.seen, Seen::Waits(Place::Nowhere(_))));
    let nowhere = listed(nowhere.map(name));
    let accelerated = pods.iter().filter(|pod| pod.seen == Seen::Passed).count();
    if !long.is_empty() {
        Verdict::failure(
            format!("at their gates: {}", listed(long.into_iter().map(name))),
            "`sidestep status pod/NAME -n NAMESPACE` says for what they wait",
        )
    } else if !nowhere.is_empty() {
        Verdict::warning(
            format!("no node is found for: {nowhere}"),
            "accelerated pods keep off nodes labelled sidestep.dev/unsupported or sidestep.dev/without-agent: `kubectl describe pod` has the \
             scheduler's words",
        )
    } else if !short.is_empty() {
        Verdict::warning(
            format!(
                "at their gates just now: {}",
                listed(short.into_iter().map(name))
            ),
            "check again in a minute",
        )
    } else {
        Verdict::good(format!("none of {accelerated} accelerated pods waits"))
    }
}

/// The webhook was asked for every injected pod since it was registered.
pub(in crate::check) fn missed(facts: &Facts) -> Option<Verdict> {
    let pods = facts.pods.as_ref().ok()?;
    let (registration, ours) = facts.ours()?;
    let since = registration.made?;
    let missed = pods.iter().filter(|pod| {
        let made = pod.made.as_ref();
        pod.seen == Seen::NotAsked
            && !ours.excluded.contains(&pod.namespace)
            && made.is_some_and(|made| made.0 > since)
    });
    let missed: Vec<_> = missed
        .map(|pod| format!("{}/{}", pod.namespace, pod.name))
        .collect();
    Some(match missed.len() {
        0 => Verdict::good("the webhook was asked for every pod that Istio injected since"),
        some => Verdict::warning(
            format!(
                "{some} pods were injected since, and the webhook was not asked: {}",
                listed(&missed)
            ),
            "it did not answer the API server when they were made; they stay with Istio until they are made anew",
        ),
    })
}

/// Nothing was reported lately.
pub(in crate::check) fn events(facts: &Facts) -> Verdict {
    let events = match &facts.events {
        Err(why) => return Verdict::unknown(why),
        Ok(events) => events,
    };
    let mut reasons: BTreeMap<&str, Vec<&EventFact>> = BTreeMap::new();
    for event in events {
        if event.at.is_none_or(|at| facts.age(at) <= LATELY) {
            reasons.entry(&event.reason).or_default().push(event);
        }
    }
    let said = reasons.iter().map(|(reason, events)| {
        let last = events.iter().max_by_key(|event| event.at);
        let last = last.map(|event| format!("{}: {}", event.object, event.note));
        format!(
            "{} {reason} (last: {})",
            events.len(),
            last.unwrap_or_default()
        )
    });
    let said: Vec<_> = said.collect();
    if said.is_empty() {
        Verdict::good("no Warning of Sidestep's within an hour")
    } else {
        let hint = "`kubectl get events -A --field-selector type=Warning` shows them all";
        Verdict::warning(said.join("; "), hint)
    }
}
