//! What the agents tell of themselves.

use std::collections::BTreeMap;

use sidestep_agent_api::Status;

use crate::check::facts::{Facts, listed};
use crate::check::finding::Verdict;

/// Every agent answers.
pub(in crate::check) fn answer(facts: &Facts) -> Option<Verdict> {
    let agents = match &facts.agents {
        Err(why) => return Some(Verdict::unknown(why)),
        Ok(agents) => agents,
    };
    let silent = agents.iter().filter_map(|(pod, answer)| {
        let why = answer.as_ref().err()?;
        Some((why.replace(&pod.name, "POD"), pod.node.as_str()))
    });
    let silent = grouped(silent);
    let (some, all) = (silent.values().map(Vec::len).sum::<usize>(), agents.len());
    let hint = "Sidestep works without this; what these agents do is not known here. The cause is what the API server or the agent's pod says";
    Some(match some {
        _ if agents.is_empty() => return None,
        0 => Verdict::good(format!("{all} answer")),
        _ if some == all => Verdict::failure(format!("none answers: {}", said(&silent)), hint),
        _ => Verdict::warning(
            format!("{some} of {all} do not answer: {}", said(&silent)),
            hint,
        ),
    })
}

/// Every agent that answers is ready.
pub(in crate::check) fn ready(facts: &Facts) -> Option<Verdict> {
    let told = told(facts)?;
    let slow = told.iter().filter(|(_, status)| !status.ready);
    let slow = grouped(slow.map(|(node, status)| (status.errors.join("; "), *node)));
    let troubled = told.iter().filter(|(_, status)| status.ready);
    let troubled = troubled.flat_map(|(node, status)| {
        let errors = status.errors.iter().cloned();
        errors.map(|error| (error, *node))
    });
    let troubled = grouped(troubled);
    let hint = "the reason says what is missing; new pods on these nodes stay with Istio or wait at their gates";
    Some(if !slow.is_empty() {
        Verdict::failure(format!("not ready: {}", said(&slow)), hint)
    } else if !troubled.is_empty() {
        let hint = "the reason says what to do";
        Verdict::warning(format!("ready, with trouble: {}", said(&troubled)), hint)
    } else {
        Verdict::good(format!("{} ready", told.len()))
    })
}

/// The shortcut is on.
pub(in crate::check) fn shortcut(facts: &Facts) -> Option<Verdict> {
    let told = told(facts)?;
    let off = told.iter().filter(|(_, status)| !status.shortcut.on);
    let off = grouped(off.map(|(node, status)| {
        let why = status.shortcut.reason.clone();
        (why.unwrap_or_else(|| "not proven yet".to_owned()), *node)
    }));
    Some(if off.is_empty() {
        Verdict::good(format!("on everywhere ({} asked)", told.len()))
    } else {
        Verdict::warning(
            format!("off: {}", said(&off)),
            "interception does not need it. README.md lists the kernels that have it, under The shortcut",
        )
    })
}

/// Nobody takes our programs away.
pub(in crate::check) fn repairs(facts: &Facts) -> Option<Verdict> {
    let told = told(facts)?;
    let restored = told.iter().filter_map(|(node, status)| {
        let last = status.repairs.last()?;
        Some((last.clone(), *node))
    });
    let restored = grouped(restored);
    Some(if restored.is_empty() {
        Verdict::good("nothing of ours had to be restored")
    } else {
        Verdict::warning(
            format!("restored: {}", said(&restored)),
            "another program on the node removes or replaces Sidestep's BPF programs or pins: find it with `bpftool cgroup tree`",
        )
    })
}

/// The agents that answered, by node; `None` if there is none.
fn told(facts: &Facts) -> Option<Vec<(&str, &Status)>> {
    let agents = facts.agents.as_ref().ok()?.iter();
    let told = agents.filter_map(|(pod, answer)| Some((pod.node.as_str(), answer.as_ref().ok()?)));
    let told: Vec<_> = told.collect();
    (!told.is_empty()).then_some(told)
}

/// Nodes by what is said of them.
fn grouped<'a>(all: impl Iterator<Item = (String, &'a str)>) -> BTreeMap<String, Vec<&'a str>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (what, node) in all {
        groups.entry(what).or_default().push(node);
    }
    groups
}

fn said(groups: &BTreeMap<String, Vec<&str>>) -> String {
    let parts = groups.iter();
    let parts: Vec<_> = parts
        .map(|(what, nodes)| format!("{} ({what})", listed(nodes)))
        .collect();
    parts.join(", ")
}
