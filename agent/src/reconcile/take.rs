//! Takes the steps that `plan.rs` plans, in the one order that is safe: everything the programs need is in place before the
//! record that makes them act, and the record points elsewhere before old sets go. A pod that fails before its record is
//! written is as if nothing had been tried, and its gate stays closed. After that nothing is taken back: the pod may be
//! active by then, and whoever passed its gate must stay captured.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
};

use sidestep_contract::Policy;
use sidestep_kernel::netns::{Cookie, NetnsError};
use thiserror::Error;

pub use super::plan::Wish;
use super::plan::{self, Inside, Step};
use crate::{
    dataplane::{Dataplane, DataplaneError},
    rules::{CompileError, Rules, Unmapped},
    sandbox::{Sandbox, facts::PASSTHROUGH6},
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
    Rules(#[from] CompileError),
    /// The ids in it.
    #[error(transparent)]
    Unmapped(#[from] Unmapped),
    /// Two pods cannot share a namespace's one record.
    #[error("its network namespace {netns} is already that of pod {other}")]
    Taken {
        /// The namespace.
        netns: String,
        /// The pod that is armed in it.
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
            Self::Rules(_) | Self::Unmapped(_) => "policy",
            Self::Taken { .. } => "namespace-taken",
        }
    }
}

/// A namespace that is armed.
#[derive(Clone, Debug)]
pub struct Armed {
    /// The namespace.
    pub cookie: Cookie,
    /// What was written for it.
    pub rules: Rules,
}

/// What could not be taken back, or belongs to nobody any more: harmless without a record, and swept later.
#[derive(Debug, Default)]
pub struct Litter {
    /// There may be sets that no record points to.
    pub(super) sets: bool,
    /// Namespaces that may have state, but no record.
    pub(super) states: BTreeSet<Cookie>,
    /// Namespaces that were disarmed, and whose connections are still remembered.
    pub(super) connections: BTreeSet<Cookie>,
}

/// Looks into a namespace, and gives it what is wanted if it does not have it. `before` is what an earlier call wrote, wherever
/// that was. `None` says that all of it is there and as it should be.
pub fn arm(
    dataplane: &mut impl Dataplane,
    sandbox: &impl Sandbox,
    wish: &Wish<'_>,
    before: Option<&Armed>,
    litter: &mut Litter,
) -> Result<Option<Armed>, ArmError> {
    let policy = &*on_node(sandbox, wish.policy)?;
    let wish = &Wish { policy, ..*wish };
    let inside = look_inside(dataplane, sandbox, policy, before)?;
    let rules = match plan::arm(wish, &inside, before)? {
        Step::Keep => return Ok(None),
        Step::Arm(rules) => *rules,
    };
    let cookie = inside.cookie;
    let known = match prepare(dataplane, sandbox, policy, &inside, &rules)
        .and_then(|known| Ok(dataplane.commit(cookie, &rules).map(|()| known)?))
    {
        Ok(known) => known,
        Err(error) => {
            take_back(dataplane, &inside, &rules, litter);
            return Err(error);
        }
    };
    // From here on the record points to the new sets.
    let old = plan::written_here(before, cookie).map(|armed| &armed.rules);
    let deleted = old.is_none_or(|old| dataplane.delete_rules(old).is_ok());
    let others = inside.record != old.map(|old| old.record.rules);
    litter.sets |= !deleted || inside.record.is_some() && others;
    match notice(dataplane, sandbox, policy, cookie, &known) {
        // A pod that was armed before has lost nothing.
        Err(error) if inside.record.is_some() => {
            tracing::warn!(%error, cookie, "could not look for a pod's listeners; will look again");
        }
        done => done?,
    }
    Ok(Some(Armed { cookie, rules }))
}

/// A policy with the ids that the programs see.
fn on_node<'a>(sandbox: &impl Sandbox, policy: &'a Policy) -> Result<Cow<'a, Policy>, ArmError> {
    Ok(match sandbox.users()? {
        None => Cow::Borrowed(policy),
        Some(users) => Cow::Owned(users.on_node(policy)?),
    })
}

fn look_inside(
    dataplane: &mut impl Dataplane,
    sandbox: &impl Sandbox,
    policy: &Policy,
    before: Option<&Armed>,
) -> Result<Inside, ArmError> {
    let mut facts = sandbox.facts()?;
    let cookie = facts.cookie;
    if facts.captures_ipv6(policy.dual_stack) {
        let passthrough = PASSTHROUGH6.into();
        if !facts.addresses.contains(&passthrough) {
            sandbox.raise_passthrough6()?;
            facts.addresses.push(passthrough);
        }
        // Wherever the kernel lists it from now on: the rules must compare equal.
        facts.addresses.sort_unstable();
    }
    let known = plan::written_here(before, cookie).is_some();
    Ok(Inside {
        cookie,
        facts,
        given: sandbox.given().map(<[_]>::to_vec),
        record: dataplane.rules_of(cookie)?,
        attached: known && dataplane.is_attached(cookie)?,
        fresh: dataplane.new_rules_id(),
    })
}

/// Takes back what was written before the record, which still is what it was. What cannot be taken back now means nothing
/// without a record, and is litter.
fn take_back(dataplane: &mut impl Dataplane, inside: &Inside, rules: &Rules, litter: &mut Litter) {
    if inside.record.is_none() && dataplane.disarm(inside.cookie).is_err() {
        litter.states.insert(inside.cookie);
    }
    litter.sets |= dataplane.delete_rules(rules).is_err();
}

/// Everything but the record. The answer names the listening sockets that were found.
fn prepare(
    dataplane: &mut impl Dataplane,
    sandbox: &impl Sandbox,
    policy: &Policy,
    inside: &Inside,
    rules: &Rules,
) -> Result<HashSet<u32>, ArmError> {
    let cookie = inside.cookie;
    dataplane.open_state(cookie)?;
    dataplane.write_rules(rules)?;
    dataplane.attach_inbound(cookie, sandbox.netns())?;
    // A proxy that listens already must be found by the first connection after the record is there …
    let found = sandbox.listeners(policy)?;
    if inside.record.is_none() || !dataplane.has_listener(cookie) {
        for listener in &found.inbound {
            dataplane.add_listener(cookie, listener)?;
        }
    }
    Ok(found.inbound.iter().map(|l| l.inode).collect())
}

/// … and one that listened while the record was not there yet was seen by nobody.
fn notice(
    dataplane: &mut impl Dataplane,
    sandbox: &impl Sandbox,
    policy: &Policy,
    cookie: Cookie,
    known: &HashSet<u32>,
) -> Result<(), ArmError> {
    let found = sandbox.listeners(policy)?;
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
pub(super) fn look_again(
    dataplane: &mut impl Dataplane,
    sandbox: &impl Sandbox,
    policy: &Policy,
    cookie: Cookie,
) -> Result<(), ArmError> {
    if dataplane.is_active(cookie)? && dataplane.has_listener(cookie) {
        return Ok(());
    }
    let policy = on_node(sandbox, policy)?;
    notice(dataplane, sandbox, &policy, cookie, &HashSet::new())
}
