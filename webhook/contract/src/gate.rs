//! The gate: `istio-init` without privileges, turned into Istio's own validation. It waits until its own connections
//! are redirected, and so keeps the pod closed until somebody has programmed it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Capabilities, Container, SeccompProfile, SecurityContext};

use crate::istio::flags::Flag;
use crate::istio::{self, pflag};
use crate::{Leave, keys};

/// How long the gate waits before the container fails. Istio's 5 seconds would send a late start into kubelet's
/// back-off, and fail a pod that is never restarted.
pub const PROBE_TIMEOUT: Duration = Duration::from_mins(5);

const RUN_VALIDATION: &str = "--run-validation";
const SKIP_RULE_APPLY: &str = "--skip-rule-apply";
const PROBE_TIMEOUT_FLAG: &str = "--probe-timeout=";

/// Whether `container` is a gate: named `istio-init`, validating and applying nothing, and with no privilege to apply
/// anything.
pub fn is_gate(container: &Container) -> bool {
    container.name == keys::ISTIO_INIT
        && istio::arguments(container).is_ok_and(has_gate_flags)
        && container
            .security_context
            .as_ref()
            .is_some_and(is_unprivileged)
}

/// The arguments of the gate made of a container with the arguments `args`, `istio-iptables` first.
///
/// The three flags go last, so that no earlier repetition wins, but before `--`, behind which nothing is a flag.
pub fn gate_args(args: &[String], probe_timeout: Duration) -> Result<Vec<String>, Leave> {
    let behind_subcommand = args.get(1..).unwrap_or_default();
    let end = pflag::parse(behind_subcommand)?.end;
    let (flags, rest) = args.split_at(args.len().min(end + 1));
    let timeout = format!(
        "{PROBE_TIMEOUT_FLAG}{}",
        istio::duration_text(probe_timeout)
    );
    let added = [
        RUN_VALIDATION.to_owned(),
        SKIP_RULE_APPLY.to_owned(),
        timeout,
    ];
    Ok([flags, added.as_slice(), rest].concat())
}

/// The gate made of `container`, an `istio-init` as the injector wrote it. A gate stays as it is.
pub fn make(container: &Container, probe_timeout: Duration) -> Result<Container, Leave> {
    let policy = istio::policy(container)?;
    if is_gate(container) {
        return Ok(container.clone());
    }
    let Some(id) = policy.proxy_uids.iter().copied().find(|uid| *uid != 0) else {
        return Err(Leave::OnlyRoot {
            origin: Flag::ProxyUid.given(),
            value: list(&policy.proxy_uids),
        });
    };
    let args = container.args.as_deref().unwrap_or_default();
    Ok(Container {
        name: keys::ISTIO_INIT.to_owned(),
        args: Some(gate_args(args, probe_timeout)?),
        security_context: Some(unprivileged(id, container.security_context.as_ref())),
        ..container.clone()
    })
}

fn list(ids: &[u32]) -> String {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    ids.join(",")
}

/// Whether the last flags are the three that [`gate_args`] adds, spelled as it spells them and nowhere else.
fn has_gate_flags(args: &[String]) -> bool {
    let Ok(parsed) = pflag::parse(args) else {
        return false;
    };
    let Some(start) = parsed.end.checked_sub(3) else {
        return false;
    };
    let tail = parsed.given.iter().filter(|given| given.at >= start);
    let flags = [Flag::RunValidation, Flag::SkipRuleApply, Flag::ProbeTimeout];
    let elsewhere = parsed.given.iter().any(|given| {
        given.at < start && matches!(given.flag, Flag::RunValidation | Flag::SkipRuleApply)
    });
    tail.map(|given| given.flag).eq(flags)
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

/// Every field that could give a privilege says that it does not; the others may be as somebody else's policy wants.
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
