//! The arguments and environment of an `istio-init` → a policy, or the reason why there is none.

use k8s_openapi::api::core::v1::{Capabilities, Container, EnvVar, SecurityContext};
use sidestep_contract::gate::PROBE_TIMEOUT;
use sidestep_contract::{IstioInit, Leave, keys};

/// What marks a line as a variable.
const VARIABLE: char = '$';

/// A policy is the same when its container has become a gate, and a gate stays as it is. Each line of the input is an
/// argument, or `$NAME=value`.
pub fn check(input: &[u8]) {
    let container = container(&String::from_utf8_lossy(input));
    let init = IstioInit::read(0, &container);
    let policy = match &init.policy {
        Ok(policy) => policy,
        Err(leave) => return assert_tells(leave),
    };
    assert!(policy.to_string().len() < 4096, "{policy}");
    assert!(!policy.proxy_uids.is_empty() && !policy.proxy_gids.is_empty());
    let gate = match init.gate(PROBE_TIMEOUT) {
        Ok(gate) => gate,
        Err(leave) => {
            assert_eq!(leave.reason(), "only-root");
            return assert_tells(&leave);
        }
    };
    let again = IstioInit::read(0, &gate);
    assert!(again.is_gate, "{gate:?}");
    assert_eq!(again.policy, init.policy);
    assert_eq!(again.gate(PROBE_TIMEOUT), Ok(gate.clone()));
}

fn assert_tells(leave: &Leave) {
    assert!(!leave.reason().is_empty() && !leave.to_string().is_empty());
}

/// With the privileges that the injector gives.
fn container(input: &str) -> Container {
    let mut args = vec![keys::ISTIO_IPTABLES.to_owned()];
    let mut env = Vec::new();
    for line in input.lines() {
        match line.strip_prefix(VARIABLE) {
            Some(variable) => {
                let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
                env.push(EnvVar {
                    name: name.to_owned(),
                    value: Some(value.to_owned()),
                    value_from: None,
                });
            }
            None => args.push(line.to_owned()),
        }
    }
    Container {
        name: keys::ISTIO_INIT.to_owned(),
        args: Some(args),
        env: Some(env),
        security_context: Some(SecurityContext {
            capabilities: Some(Capabilities {
                add: Some(vec!["NET_ADMIN".to_owned(), "NET_RAW".to_owned()]),
                drop: Some(vec!["ALL".to_owned()]),
            }),
            run_as_user: Some(0),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// The input that stands for this container.
pub(crate) fn input(container: &Container) -> String {
    let args = container.args.iter().flatten().skip(1).cloned();
    let env = container.env.iter().flatten();
    let env = env.map(|it| {
        let value = it.value.as_deref().unwrap_or_default();
        format!("{VARIABLE}{}={value}", it.name)
    });
    args.chain(env).collect::<Vec<_>>().join("\n")
}
