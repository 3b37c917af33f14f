//! Arming one pod, in the one order that is safe: everything the programs need is in place before the record that makes
//! them act, and a pod that fails half way is as if nothing had been tried. Its gate then stays closed.

use std::{
    collections::HashSet,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use sidestep_contract::Policy;
use thiserror::Error;

use crate::{
    dataplane::{Dataplane, DataplaneError},
    facts, listeners,
    netns::{Cookie, NetnsError},
    rules::{self, Allowed, BadIds, Rules},
    sandbox::Sandbox,
};

/// Why a pod could not be armed.
#[derive(Debug, Error)]
pub enum ArmError {
    /// Its namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The kernel.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// Its policy.
    #[error(transparent)]
    Ids(#[from] BadIds),
    /// Two pods cannot share a namespace's one record.
    #[error("its network namespace {netns} is already that of pod {other}")]
    Taken {
        /// The namespace.
        netns: String,
        /// Who has it.
        other: String,
    },
}

impl ArmError {
    /// The reason in a word, in kebab case. Stable.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Netns(NetnsError::Host(_)) => "host-namespace",
            Self::Netns(_) => "namespace",
            Self::Dataplane(_) => "kernel",
            Self::Ids(_) => "policy",
            Self::Taken { .. } => "namespace-taken",
        }
    }
}

/// A pod that is armed.
#[derive(Debug)]
pub struct Armed {
    /// Its namespace.
    pub cookie: Cookie,
    /// What was written.
    pub rules: Rules,
    /// How long programming it took.
    pub took: Duration,
    /// It was armed already, by somebody else, whose sets are to be swept.
    pub took_over: bool,
}

/// Arms a pod, or brings an armed one up to date. `before` is what an earlier call wrote for this namespace; `None` says
/// that all of it is there and as it should be.
pub fn arm(
    dataplane: &mut impl Dataplane,
    sandbox: &Sandbox,
    policy: &Policy,
    allowed: Allowed,
    strict: bool,
    before: Option<&Armed>,
) -> Result<Option<Armed>, ArmError> {
    let start = Instant::now();
    let namespace = &sandbox.namespace;
    let mut facts = facts::read(namespace, sandbox.name_servers.clone())?;
    let cookie = facts.cookie;
    if facts.captures_ipv6(policy.dual_stack) {
        let passthrough = facts::PASSTHROUGH6.into();
        if !facts.addresses.contains(&passthrough) {
            facts::raise_passthrough6(namespace)?;
            facts.addresses.push(passthrough);
        }
        // Wherever the kernel lists it from now on: the rules must compare equal.
        facts.addresses.sort_unstable();
    }
    let compile = |id| {
        let rules = rules::compile(policy, &facts, id, strict)?;
        Ok::<_, BadIds>(rules.allowing(allowed).known_by(sandbox.given.as_deref()))
    };
    let known = before.filter(|armed| armed.cookie == cookie);
    if let Some(armed) = known
        && dataplane.is_attached(cookie)?
        && dataplane.rules_of(cookie)? == Some(armed.rules.record.rules)
        && compile(armed.rules.record.rules)? == armed.rules
    {
        return Ok(None);
    }
    let rules = compile(dataplane.new_rules_id())?;
    let was_armed = dataplane.rules_of(cookie)?.is_some();
    let prepared = prepare(dataplane, sandbox, policy, cookie, &rules, was_armed);
    let known_listeners = match prepared {
        Ok(known) => known,
        Err(error) => return Err(undo(dataplane, &rules, was_armed, cookie, error)),
    };
    if let Err(error) = dataplane.commit(cookie, &rules) {
        return Err(undo(dataplane, &rules, was_armed, cookie, error.into()));
    }
    // From here on the record points to the new sets. A pod that was armed before has lost nothing, and one that is active by
    // now may have let its gate through: then it must stay captured, and only the rest is tried again.
    match notice(dataplane, sandbox, policy, cookie, &known_listeners) {
        Err(error) if was_armed => tracing::warn!(%error, cookie, "cannot look for listeners"),
        Err(error) if !matches!(dataplane.is_active(cookie), Ok(false)) => return Err(error),
        Err(error) => return Err(undo(dataplane, &rules, was_armed, cookie, error)),
        Ok(()) => {}
    }
    if let Some(old) = known {
        dataplane.delete_rules(&old.rules)?;
    }
    Ok(Some(Armed {
        cookie,
        rules,
        took: start.elapsed(),
        took_over: was_armed && known.is_none(),
    }))
}

/// Takes back what was written. Best effort: what cannot be undone now is swept at the next start, and means nothing
/// without a record.
fn undo(
    dataplane: &mut impl Dataplane,
    rules: &Rules,
    was_armed: bool,
    cookie: Cookie,
    error: ArmError,
) -> ArmError {
    if !was_armed {
        let _best_effort = dataplane.disarm(cookie);
    }
    let _best_effort = dataplane.delete_rules(rules);
    error
}

/// Everything but the record. The answer names the listening sockets that were found.
fn prepare(
    dataplane: &mut impl Dataplane,
    sandbox: &Sandbox,
    policy: &Policy,
    cookie: Cookie,
    rules: &Rules,
    was_armed: bool,
) -> Result<HashSet<u32>, ArmError> {
    dataplane.open_state(cookie)?;
    dataplane.write_rules(rules)?;
    dataplane.attach_inbound(cookie, sandbox.namespace.as_fd())?;
    // A proxy that listens already must be found by the first connection after the record is there …
    let found = listeners::find(sandbox, policy)?;
    if !was_armed || !dataplane.has_listener(cookie) {
        for listener in &found.inbound {
            dataplane.add_listener(cookie, listener)?;
        }
    }
    Ok(found.inbound.iter().map(|l| l.inode).collect())
}

/// … and one that listened while the record was not there yet was seen by nobody.
fn notice(
    dataplane: &mut impl Dataplane,
    sandbox: &Sandbox,
    policy: &Policy,
    cookie: Cookie,
    known: &HashSet<u32>,
) -> Result<(), ArmError> {
    let found = listeners::find(sandbox, policy)?;
    for listener in found.inbound.iter().filter(|l| !known.contains(&l.inode)) {
        dataplane.add_listener(cookie, listener)?;
    }
    dataplane.note_proxy(cookie, &found);
    if !found.inbound.is_empty() {
        dataplane.activate(cookie, found.spread)?;
    }
    Ok(())
}

/// Notices a proxy that listens and is not known: whose `listen` the programs could not attribute, or did not see.
pub fn look_again(
    dataplane: &mut impl Dataplane,
    sandbox: &Sandbox,
    policy: &Policy,
    cookie: Cookie,
) -> Result<(), ArmError> {
    if dataplane.is_active(cookie)? && dataplane.has_listener(cookie) {
        return Ok(());
    }
    notice(dataplane, sandbox, policy, cookie, &HashSet::new())
}
