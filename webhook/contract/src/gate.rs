//! The gate: `istio-init` without privileges, turned into Istio's own validation. The gate waits until its own
//! connections are redirected, so the pod starts only once a node agent has programmed it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EnvVar, SeccompProfile, SecurityContext,
};
use serde::{Deserialize, Serialize};

use crate::istio::duration_text;
use crate::istio::flags::Flag;
use crate::istio::pflag::Arguments;
use crate::{Leave, Policy, keys};

/// How long the gate waits before the container fails. With Istio's own 5 seconds, an agent that is late would send the
/// container into kubelet's back-off, and would fail a pod that is never restarted.
pub const PROBE_TIMEOUT: Duration = Duration::from_mins(5);

/// What gates say, as a number: a release whose gates say what agents of earlier releases do not read raises it. The label
/// [`keys::READS`] of an agent's pod has the agent's own; an agent without it reads the first.
pub const LANGUAGE: u32 = 1;

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

/// The gate made of `container`, which is an `istio-init` or an `istio-validation` as the injector wrote it, but for arguments
/// that the webhook added; the gate carries `original`, without them. `flags` are the arguments, split.
pub(crate) fn make(
    container: &Container,
    original: &Container,
    flags: &Arguments,
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
    let original = Original::of(original);
    let args = container.args.as_deref().unwrap_or_default();
    Ok(Container {
        name: keys::ISTIO_INIT.to_owned(),
        args: Some(gate_args(args, flags, probe_timeout)),
        env: Some([original.env.as_slice(), &[original.variable()]].concat()),
        security_context: Some(unprivileged(id, container.security_context.as_ref())),
        ..container.clone()
    })
}

/// The fields by which a gate differs from the container that it was made of. A gate carries them in the variable
/// [`keys::ORIGINAL`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Original {
    #[serde(default = "istio_init", skip_serializing_if = "is_istio_init")]
    name: String,
    args: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    env: Vec<EnvVar>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    security_context: Option<SecurityContext>,
}

fn istio_init() -> String {
    keys::ISTIO_INIT.to_owned()
}

fn is_istio_init(name: &String) -> bool {
    name == keys::ISTIO_INIT
}

impl Original {
    fn of(container: &Container) -> Self {
        let env = container.env.iter().flatten();
        Self {
            name: container.name.clone(),
            args: container.args.clone().unwrap_or_default(),
            env: env
                .filter(|variable| variable.name != keys::ORIGINAL)
                .cloned()
                .collect(),
            security_context: container.security_context.clone(),
        }
    }

    fn variable(&self) -> EnvVar {
        EnvVar {
            name: keys::ORIGINAL.to_owned(),
            value: serde_json::to_string(self).ok(),
            value_from: None,
        }
    }
}

/// The container of which the gate `container` was made, if the gate carries it. Whatever else other webhooks gave the
/// gate, such as an image from a mirror, stays.
pub(crate) fn original(container: &Container) -> Option<Container> {
    let mut variables = container.env.iter().flatten();
    let carried = variables.find(|variable| variable.name == keys::ORIGINAL)?;
    let original: Original = serde_json::from_str(carried.value.as_deref()?).ok()?;
    Some(Container {
        name: original.name,
        command: None,
        args: Some(original.args),
        env: (!original.env.is_empty()).then_some(original.env),
        env_from: None,
        security_context: original.security_context,
        ..container.clone()
    })
}

/// Whether the arguments say, in whatever place, that the container applies no rules.
pub(crate) fn has_gate_words(container: &Container) -> bool {
    let args = container.args.as_deref().unwrap_or_default();
    let says = |word: &str| args.iter().any(|arg| arg == word);
    says(RUN_VALIDATION) && says(SKIP_RULE_APPLY)
}

/// Whether the container may write rules.
pub(crate) fn may_write_rules(container: &Container) -> bool {
    let Some(context) = &container.security_context else {
        return false;
    };
    let added = context.capabilities.as_ref().and_then(|c| c.add.as_ref());
    let mut added = added.into_iter().flatten();
    context.privileged == Some(true) || added.any(|name| name == "NET_ADMIN" || name == "ALL")
}

/// The arguments of the gate, `istio-iptables` first. The three flags go last, so that no earlier repetition wins, but before
/// `--`, behind which nothing is a flag. An `istio-validation` has two of them already.
fn gate_args(args: &[String], flags: &Arguments, probe_timeout: Duration) -> Vec<String> {
    let (before, rest) = args.split_at(args.len().min(flags.end + 1));
    let given = |index: usize| flags.given.iter().find(|given| given.at + 1 == index);
    let before = before.iter().enumerate();
    let kept =
        before.filter(|(index, _)| !given(*index).is_some_and(|given| validates(given.flag)));
    let added = [
        RUN_VALIDATION.to_owned(),
        SKIP_RULE_APPLY.to_owned(),
        format!("{PROBE_TIMEOUT_FLAG}{}", duration_text(probe_timeout)),
    ];
    let kept = kept.map(|(_, arg)| arg.clone());
    kept.chain(added).chain(rest.iter().cloned()).collect()
}

fn validates(flag: Flag) -> bool {
    matches!(flag, Flag::RunValidation | Flag::SkipRuleApply)
}

/// Whether the last flags are the three that [`gate_args`] adds, spelled as it spells them and nowhere else.
fn has_gate_flags(args: &[String], flags: &Arguments) -> bool {
    let Some(start) = flags.end.checked_sub(3) else {
        return false;
    };
    let tail = flags.given.iter().filter(|given| given.at >= start);
    let wanted = [Flag::RunValidation, Flag::SkipRuleApply, Flag::ProbeTimeout];
    let mut before = flags.given.iter().filter(|given| given.at < start);
    let elsewhere = before.any(|given| validates(given.flag));
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
