//! The ABI of the shortcut: a BPF object and a set of maps of its own, beside interception's.

mod count;
mod end;
mod settings;

use crate::Ids;
pub use count::{COUNTS, Count};
pub use end::{
    CANDIDATE, EndKey, EndRecord, EndState, HAS_REDIRECTED, IN_SOCKHASH, IS_PROXY, ONE_NAMESPACE,
    Queue, READ_PLAINLY, RECEIVES, SENDS, WATCHED,
};
pub use settings::ShortcutSettings;

/// Version of everything that is pinned, part of the name of the shortcut's pin folder. One that was released keeps its layout.
pub const SHORTCUT_ABI_VERSION: u32 = 8 + crate::NEXT;

/// Places in the array of pods. Place 0 is never given to a pod.
pub const PLACES: u32 = 4096;

/// Most ends of shortcuts that may be one pod's, so that none takes what the others need. Connections beyond that stay with TCP.
pub const ENDS_SHARE: u32 = 16_384;

/// Those that a node may have. Each is in one of two sockhashes, or in both, of half as many: there is room for eight such pods.
pub const MAX_ENDS: usize = 16 * ENDS_SHARE as usize;

/// Programs and ports of applications of which it is known whether they block, on a node.
pub const MAX_MANNERS: usize = 32_768;

/// Most of them that may be one pod's, since the one that nobody asked for longest makes room: 256 such pods. What is beyond
/// that is not learnt, and stays with TCP.
pub const MANNERS_SHARE: i64 = (MAX_MANNERS / 256).cast_signed() as i64;

/// [`PodSwitch::flags`]: bytes may go between an application and its own sidecar.
pub const REACH_POD: u32 = 1 << 0;
/// [`PodSwitch::flags`]: bytes may go between this pod's sidecar and one on the node of another Kubernetes namespace.
pub const REACH_NODE: u32 = 1 << 1;
/// [`PodSwitch::flags`]: bytes may go between this pod's sidecar and another's on the node that is of its own Kubernetes
/// namespace.
pub const REACH_NAMESPACE: u32 = 1 << 4;
/// [`PodSwitch::flags`]: bytes may also be put into the application's sockets.
pub const INTO_APPLICATION: u32 = 1 << 2;
/// [`PodSwitch::flags`]: sockets of the application may be ends at all.
pub const FROM_APPLICATION: u32 = 1 << 3;

/// Where the self-test listens with MPTCP.
pub const MPTCP_PORT: u16 = 15_099;

/// A pod that takes part, under its network namespace's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Member {
    /// Where its [`PodSwitch`] and its proxy's process stand.
    pub place: u32,
    /// `-p`.
    pub outbound_port: u16,
    /// `-z`.
    pub inbound_port: u16,
    /// `-u`: who may be the proxy.
    pub uids: Ids,
    /// `-g`: the same.
    pub gids: Ids,
}

impl Member {
    /// Whether a process with these ids can be the proxy.
    #[inline(always)]
    pub fn may_be_proxy(&self, uid: u32, gid: u32) -> bool {
        self.uids.hold(uid) || self.gids.hold(gid)
    }

    /// Whether the proxy takes connections on this port.
    #[inline(always)]
    pub const fn captures_on(&self, port: u16) -> bool {
        port == self.outbound_port || port == self.inbound_port
    }
}

/// What a pod allows now: read at each message, so that turning it off needs no change to any socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PodSwitch {
    /// The pod's network namespace: who remembers a place of an earlier pod finds another cookie in it.
    pub cookie: u64,
    /// [`REACH_POD`], [`REACH_NAMESPACE`], [`REACH_NODE`], [`INTO_APPLICATION`], [`FROM_APPLICATION`].
    pub flags: u32,
    /// The number of its Kubernetes namespace; 0 where none is known, as where an agent wrote it that numbered none.
    pub namespace: u32,
}

impl PodSwitch {
    /// What a pod allows that is of no known Kubernetes namespace.
    pub const fn new(cookie: u64, flags: u32) -> Self {
        Self {
            cookie,
            flags,
            namespace: 0,
        }
    }

    /// The same, of the namespace with this number.
    #[must_use]
    pub const fn of(self, namespace: u32) -> Self {
        Self { namespace, ..self }
    }

    /// Whether the other is this pod's, and both are known to be of one Kubernetes namespace.
    #[inline(always)]
    pub const fn is_beside(&self, other: &Self, cookie: u64) -> bool {
        other.cookie == cookie && self.namespace != 0 && self.namespace == other.namespace
    }

    /// Whether it is this pod's, and allows all of it.
    #[inline(always)]
    pub const fn allows(&self, cookie: u64, flags: u32) -> bool {
        self.cookie == cookie && self.flags & flags == flags
    }
}

// What is pinned, and by which version. Another layout is another version.
const _: () = assert!(
    matches!(
        (SHORTCUT_ABI_VERSION, LAYOUT),
        (8, [72, 16, 56, 32, 152, 23]) | (9, [80, 16, 56, 32, 152, 23])
    ),
    "raise SHORTCUT_ABI_VERSION, and write here what its layout is"
);
const LAYOUT: [usize; 6] = [
    size_of::<Member>(),
    size_of::<PodSwitch>(),
    size_of::<EndKey>(),
    size_of::<EndRecord>(),
    size_of::<EndState>(),
    COUNTS,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_of_one_known_namespace_are_beside_each_other() {
        let switch = |cookie, namespace| PodSwitch::new(cookie, REACH_POD).of(namespace);
        assert!(switch(1, 7).is_beside(&switch(2, 7), 2));
        assert!(!switch(1, 7).is_beside(&switch(2, 8), 2));
        assert!(!switch(1, 0).is_beside(&switch(2, 0), 2), "both unknown");
        assert!(!switch(1, 7).is_beside(&switch(3, 7), 2), "another pod's");
    }
}
