//! Policies as the injector writes them, and the namespaces of pods.

use sidestep_contract::{Policy, istio};
use sidestep_rules::{Facts, Rules, compile};

/// The policy of an `istio-init` with these arguments, between blanks (`""` is an empty one), and these variables.
pub(crate) fn policy(arguments: &str, variables: &[(&str, &str)]) -> Policy {
    let arguments = arguments
        .split_whitespace()
        .map(|word| word.trim_matches('"'));
    let arguments: Vec<_> = std::iter::once("istio-iptables").chain(arguments).collect();
    let variables = variables.iter();
    let variables =
        variables.map(|(name, value)| serde_json::json!({"name": name, "value": value}));
    let variables: Vec<_> = variables.collect();
    let container = serde_json::json!({"name": "istio-init", "args": arguments, "env": variables});
    let container = serde_json::from_value(container).expect("a container");
    istio::policy(&container).expect("a policy that Sidestep takes")
}

/// A namespace with these addresses.
pub(crate) fn facts(addresses: &[&str], name_servers: &[&str]) -> Facts {
    let all = |list: &[&str]| {
        list.iter()
            .map(|a| a.parse().expect("an address"))
            .collect()
    };
    Facts {
        addresses: all(addresses),
        name_servers: all(name_servers),
        ..Facts::default()
    }
}

pub(crate) fn rules(policy: &Policy, facts: &Facts) -> Rules {
    compile(policy, facts, 7, true).expect("ids that the programs can walk")
}
