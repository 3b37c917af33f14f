//! Pods and containers to parse.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Capabilities, Container, EnvVar, Pod, PodSpec, SecurityContext};
use sidestep_contract::{IstioInit, Leave, Policy};

/// Arguments as owned texts, with the subcommand in front.
pub(crate) fn istio_iptables(args: &[&str]) -> Vec<String> {
    let args = args.iter().copied();
    std::iter::once("istio-iptables")
        .chain(args)
        .map(str::to_owned)
        .collect()
}

pub(crate) fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        value_from: None,
    }
}

/// An `istio-init` with the privileges that the injector gives it.
pub(crate) fn istio_init(args: Vec<String>, env: Vec<EnvVar>) -> Container {
    Container {
        name: "istio-init".to_owned(),
        image: Some("istio/proxyv2".to_owned()),
        args: Some(args),
        env: Some(env),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            privileged: Some(false),
            capabilities: Some(Capabilities {
                add: Some(vec!["NET_ADMIN".to_owned(), "NET_RAW".to_owned()]),
                drop: Some(vec!["ALL".to_owned()]),
            }),
            read_only_root_filesystem: Some(false),
            run_as_group: Some(0),
            run_as_non_root: Some(false),
            run_as_user: Some(0),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// What the parser makes of these arguments and variables.
pub(crate) fn parse(args: &[&str], env: &[(&str, &str)]) -> Result<Policy, Leave> {
    let env = env.iter().map(|(name, value)| variable(name, value));
    policy(&istio_init(istio_iptables(args), env.collect()))
}

/// What a container says, wherever it stands.
pub(crate) fn policy(container: &Container) -> Result<Policy, Leave> {
    IstioInit::read(0, container).policy
}

pub(crate) fn is_gate(container: &Container) -> bool {
    IstioInit::read(0, container).is_gate
}

/// The gate that is made of a container.
pub(crate) fn make(container: &Container, probe_timeout: Duration) -> Result<Container, Leave> {
    IstioInit::read(0, container).gate(probe_timeout)
}

/// A pod with these init containers.
pub(crate) fn pod(init_containers: Vec<Container>) -> Pod {
    Pod {
        spec: Some(PodSpec {
            init_containers: Some(init_containers),
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}
