//! A policy in which a connection differs, made as small as it goes: setting by setting back to what the injector writes, and
//! item by item out of lists.

use crate::{
    attempts::Attempt,
    case::Case,
    compare::{Answer, Difference, answer},
    host::{Host, State},
    istio,
    policy::Written,
};

/// Smaller cases with the same connection. Istio's program writes the rules of each anew.
pub fn shrink(case: &Case, difference: &Difference) -> (Case, Difference) {
    let host = Host::new(case.kind);
    let mut smallest = (case.clone(), difference.clone());
    while let Some(smaller) = smaller(&host, &smallest.0, &smallest.1.attempt) {
        smallest = smaller;
    }
    smallest
}

fn smaller(host: &Host, case: &Case, attempt: &Attempt) -> Option<(Case, Difference)> {
    let mut tries = candidates(&case.policy).into_iter();
    tries.find_map(|policy| differs(host, case, policy, attempt))
}

/// The same policy with one setting as usual, or with one list shorter.
fn candidates(policy: &Written) -> Vec<Written> {
    let plain = Written::plain();
    let usual = |name: &str| plain.settings.iter().find(|it| it.name == name);
    let mut all = Vec::new();
    for (index, setting) in policy.settings.iter().enumerate() {
        match usual(&setting.name) {
            Some(usual) if usual == setting => continue,
            Some(usual) => {
                let mut policy = policy.clone();
                policy.settings[index] = usual.clone();
                all.push(policy);
            }
            None => {
                let mut policy = policy.clone();
                policy.settings.remove(index);
                all.push(policy);
            }
        }
        let items: Vec<_> = setting.value.split(',').collect();
        let mut part = items.len() / 2;
        while part > 0 {
            for start in (0..items.len()).step_by(part) {
                let end = (start + part).min(items.len());
                let rest = [&items[..start], &items[end..]].concat();
                let mut policy = policy.clone();
                policy.settings[index].value = rest.join(",");
                all.push(policy);
            }
            part /= 2;
        }
    }
    all
}

fn differs(
    host: &Host,
    case: &Case,
    policy: Written,
    attempt: &Attempt,
) -> Option<(Case, Difference)> {
    let servers = case.state.name_servers.iter().map(ToString::to_string);
    let servers: Vec<String> = servers.collect();
    let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
    let loaded = istio::write_rules(host.namespace(), &policy, &servers);
    let state = State::read(host.namespace(), &servers);
    let attempt = host.namespace().enter(|| attempt.again());
    host.clear();
    let case = Case {
        reason: case.reason,
        kind: case.kind,
        policy,
        state,
        loaded,
        attempts: vec![attempt?],
    };
    match answer(&case) {
        Ok(Answer::Compared { differences, .. }) => {
            let difference = differences.into_iter().next()?;
            Some((case, difference))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_tried_with_each_setting_as_usual_and_with_parts_of_each_list() {
        let mut policy = Written::plain();
        policy.set("-o", "80,443,53,22");
        policy.set("-i", "10.0.0.0/8");
        let tried: Vec<_> = candidates(&policy)
            .iter()
            .map(ToString::to_string)
            .collect();
        let has = |words: &str| tried.iter().any(|it| it.contains(words));
        assert!(
            has("-o 53,22") && has("-o 80,443") && has("-o 80,443,22"),
            "{tried:?}"
        );
        assert!(tried.iter().any(|it| !it.contains("-o ")), "{tried:?}");
        assert!(has("-i '*'"), "{tried:?}");
        assert!(
            tried.iter().all(|it| *it != policy.to_string()),
            "{tried:?}"
        );
        assert!(candidates(&Written::plain()).is_empty());
    }
}
