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
    dataplane::{Cookie, Dataplane, DataplaneError},
    facts::{self, Facts},
    listeners,
    netns::{Namespace, NetnsError},
    rules::{self, BadIds, Rules},
    source::Wanted,
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

/// A pod that is armed.
#[derive(Debug)]
pub struct Armed {
    /// Its namespace.
    pub cookie: Cookie,
    /// What was written.
    pub rules: Rules,
    /// How long programming it took.
    pub took: Duration,
}

/// Arms a pod, or brings an armed one up to date. `before` is what an earlier call wrote for this namespace.
pub fn arm(
    dataplane: &mut impl Dataplane,
    namespace: &Namespace,
    wanted: &Wanted,
    strict: bool,
    before: Option<&Armed>,
) -> Result<Armed, ArmError> {
    let start = Instant::now();
    let servers = facts::name_servers(&wanted.netns, &wanted.name_servers);
    let mut facts = Facts::read(namespace, servers)?;
    let cookie = facts.cookie;
    if facts.captures_ipv6(wanted.policy.dual_stack) {
        facts::raise_passthrough6(namespace)?;
        facts.addresses.push(facts::PASSTHROUGH6.into());
        facts.addresses.sort_unstable();
        facts.addresses.dedup();
    }
    let known = before.filter(|armed| armed.cookie == cookie);
    if let Some(armed) = known
        && dataplane.is_attached(cookie)
        && rules::compile(&wanted.policy, &facts, armed.rules.record.rules, strict)? == armed.rules
    {
        return Ok(Armed {
            cookie,
            rules: armed.rules.clone(),
            took: armed.took,
        });
    }
    let rules = rules::compile(&wanted.policy, &facts, dataplane.new_rules_id(), strict)?;
    let was_armed = dataplane.armed()?.contains(&cookie);
    if let Err(error) = program(dataplane, namespace, &wanted.policy, &rules, was_armed) {
        // Best effort: what cannot be undone now is swept at the next start, and means nothing without a record.
        let _unused = dataplane.delete_rules(&rules);
        if !was_armed {
            let _unused = dataplane.disarm(cookie);
        }
        return Err(error);
    }
    if let Some(old) = known {
        dataplane.delete_rules(&old.rules)?;
    }
    Ok(Armed {
        cookie,
        rules,
        took: start.elapsed(),
    })
}

fn program(
    dataplane: &mut impl Dataplane,
    namespace: &Namespace,
    policy: &Policy,
    rules: &Rules,
    was_armed: bool,
) -> Result<(), ArmError> {
    let cookie = namespace.cookie()?;
    dataplane.open_state(cookie)?;
    dataplane.write_rules(rules)?;
    dataplane.attach_inbound(cookie, namespace.as_fd())?;
    // A proxy that listens already must be found by the first connection after the record is there …
    let before = listeners::find(namespace, policy)?;
    if !was_armed {
        for listener in &before.inbound {
            dataplane.add_listener(cookie, listener)?;
        }
    }
    dataplane.commit(cookie, rules)?;
    // … and one that listened while the record was not there yet was seen by nobody.
    let since = listeners::find(namespace, policy)?;
    let known: HashSet<u32> = before.inbound.iter().map(|l| l.inode).collect();
    for listener in since.inbound.iter().filter(|l| !known.contains(&l.inode)) {
        dataplane.add_listener(cookie, listener)?;
    }
    if !since.inbound.is_empty() {
        dataplane.activate(cookie, since.spread)?;
    }
    Ok(())
}

/// Notices a proxy whose `listen` the programs could not attribute: only needed while a pod is armed and not active.
pub fn look_again(
    dataplane: &mut impl Dataplane,
    wanted: &Wanted,
    cookie: Cookie,
) -> Result<bool, ArmError> {
    let namespace = Namespace::open(&wanted.netns)?;
    let found = listeners::find(&namespace, &wanted.policy)?;
    if found.inbound.is_empty() || dataplane.is_active(cookie) {
        return Ok(false);
    }
    for listener in &found.inbound {
        dataplane.add_listener(cookie, listener)?;
    }
    dataplane.activate(cookie, found.spread)?;
    Ok(true)
}
