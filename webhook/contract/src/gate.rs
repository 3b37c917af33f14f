//! The gate: `istio-init` without privileges, turned into Istio's own validation. The gate waits until its own
//! connections are redirected, so the pod starts only once a node agent has programmed it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Capabilities, Container, SeccompProfile, SecurityContext};

use crate::istio::duration_text;
use crate::istio::flags::Flag;
use crate::istio::pflag::Arguments;
use crate::{Leave, Policy, keys};

/// How long the gate waits before the container fails. With Istio's own 5 seconds, an agent that is late would send the
/// container into kubelet's back-off, and would fail a pod that is never restarted.
pub const PROBE_TIMEOUT: Duration = Duration::from_mins(5);

const RUN_VALIDATION: &str = "--run-validation";
const SKIP_RULE_APPLY: &str = "--skip-rule-apply";
const PROBE_TIMEOUT_FLAG: &str = "--probe-timeout=";

/// Whether `container` is a gate: it is named `istio-init`, it validates and applies nothing, and it has no privilege to
/// apply anything. `flags` are its `arguments`, split.
pub(crate) fn is_gate(container: &Container, arguments: &[String], flags: &Arguments) -> bool {
    container.name == keys::ISTIO_INIT
        && has_gate_flags(arguments, flags)
        && container
            .security_context
            .as_ref()
            .is_some_and(is_unprivileged)
}

/// The gate made of `container`, which is an `istio-init` as the injector wrote it. `flags` of its arguments stand
/// before `--`.
pub(crate) fn make(
    container: &Container,
    flags: usize,
    policy: &Policy,
    probe_timeout: Duration,
) -> Result<Container, Leave> {
    let Some(id) = policy.proxy_uids.iter().copied().find(|uid| *uid != 0) else {
        let ids: Vec<String> = policy.proxy_uids.iter().map(u32::to_string).collect();
        return Err(Leave::OnlyRoot {
            origin: Flag::ProxyUid.given(),
            value: ids.join(","),
        });
    };
    let args = container.args.as_deref().unwrap_or_default();
    Ok(Container {
        name: keys::ISTIO_INIT.to_owned(),
        args: Some(gate_args(args, flags, probe_timeout)),
        security_context: Some(unprivileged(id, container.security_context.as_ref())),
        ..container.clone()
    })
}

/// The arguments of the gate, `istio-iptables` first. The three added flags go last, so that no earlier repetition wins,
/// but before `--`, behind which nothing is a flag.
fn gate_args(args: &[String], flags: usize, probe_timeout: Duration) -> Vec<String> {
    let (flags, rest) = args.split_at(args.len().min(flags + 1));
    let added = [
        RUN_VALIDATION.to_owned(),
        SKIP_RULE_APPLY.to_owned(),
        format!("{PROBE_TIMEOUT_FLAG}{}", duration_text(probe_timeout)),
    ];
    [flags, added.as_slice(), rest].concat()
}

/// Whether the last flags are the three that [`gate_args`] adds, spelled as it spells them and nowhere else.
fn has_gate_flags(args: &[String], flags: &Arguments) -> bool {
    let Some(start) = flags.end.checked_sub(3) else {
        return false;
    };
    let tail = flags.given.iter().filter(|given| given.at >= start);
    let wanted = [Flag::RunValidation, Flag::SkipRuleApply, Flag::ProbeTimeout];
    let elsewhere = flags.given.iter().any(|given| {
        given.at < start && matches!(given.flag, Flag::RunValidation | Flag::SkipRuleApply)
    });
    tail.map(|given| given.flag).eq(wanted)
        && args[start] == RUN_VALIDATION
        && args[start + 1] == SKIP_RULE_APPLY
        && args[start + 2].starts_with(PROBE_TIMEOUT_FLAG)
        && !elsewhere
}

/// What keeps a container from programming anything.
fn unprivileged(id: u32, before: Option<&SecurityContext>) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        app_armor_profile: before.and_then(|before| before.app_armor_profile.clone()),
        capabilities: Some(Capabilities {
            add: None,
            drop: Some(vec!["ALL".to_owned()]),
        }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_group: Some(i64::from(id)),
        run_as_non_root: Some(true),
        run_as_user: Some(i64::from(id)),
        se_linux_options: before.and_then(|before| before.se_linux_options.clone()),
        seccomp_profile: Some(SeccompProfile {
            localhost_profile: None,
            type_: "RuntimeDefault".to_owned(),
        }),
        ..SecurityContext::default()
    }
}

/// Whether every field that could give a privilege denies it. The other fields may be as another policy wants.
fn is_unprivileged(context: &SecurityContext) -> bool {
    let capabilities = context.capabilities.as_ref();
    let adds_none = capabilities.is_none_or(|c| c.add.as_ref().is_none_or(Vec::is_empty));
    let drops_all = capabilities
        .and_then(|c| c.drop.as_ref())
        .is_some_and(|drop| drop.iter().any(|name| name == "ALL"));
    context.privileged != Some(true)
        && context.allow_privilege_escalation == Some(false)
        && context.run_as_non_root == Some(true)
        && context.run_as_user.is_some_and(|uid| uid > 0)
        && adds_none
        && drops_all
}
