//! Ids of a pod that has users of its own (`hostUsers: false`), as the node numbers them. The programs see the node's.

use sidestep_contract::{GroupSet, Policy};
use thiserror::Error;

/// A user namespace's ids on the node: the text of `/proc/<pid>/uid_map` and of `gid_map`, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    uids: Vec<Range>,
    gids: Vec<Range>,
}

/// So many ids from `inside` on are the node's from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    inside: u32,
    outside: u32,
    count: u32,
}

/// An id of a policy is nobody's in the pod's user namespace. `iptables-restore` fails there, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{kind} id {id} of its policy is not in its user namespace (hostUsers: false)")]
pub struct Unmapped {
    kind: &'static str,
    id: u32,
}

impl Users {
    /// Understands both texts, as a process of the node's own user namespace reads them.
    pub fn parse(uid_map: &str, gid_map: &str) -> Option<Self> {
        Some(Self {
            uids: ranges(uid_map)?,
            gids: ranges(gid_map)?,
        })
    }

    /// A policy with the node's ids in place of the pod's.
    pub fn on_node(&self, policy: &Policy) -> Result<Policy, Unmapped> {
        let gids = |ids: &[u32]| all(&self.gids, "group", ids);
        let mut policy = policy.clone();
        policy.proxy_uids = all(&self.uids, "user", &policy.proxy_uids)?;
        policy.proxy_gids = gids(&policy.proxy_gids)?;
        policy.groups.exclude = gids(&policy.groups.exclude)?;
        if let GroupSet::Only(only) = &mut policy.groups.include {
            *only = gids(only)?;
        }
        Ok(policy)
    }
}

fn ranges(text: &str) -> Option<Vec<Range>> {
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map(|word| word.parse().ok());
        Some(Range {
            inside: numbers.next()??,
            outside: numbers.next()??,
            count: numbers.next()??,
        })
    };
    text.lines().map(range).collect()
}

fn all(ranges: &[Range], kind: &'static str, ids: &[u32]) -> Result<Vec<u32>, Unmapped> {
    let on_node = |id: &u32| {
        let mut found = ranges.iter().filter_map(|range| {
            let nth = id.checked_sub(range.inside).filter(|n| *n < range.count)?;
            range.outside.checked_add(nth)
        });
        found.next().ok_or(Unmapped { kind, id: *id })
    };
    ids.iter().map(on_node).collect()
}
