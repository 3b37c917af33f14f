//! The ABI of the shortcut: a BPF object and a set of maps of its own, beside interception's.

use crate::{Addr, Ids};

/// Version of everything that is pinned, part of the name of the shortcut's pin folder. One that was released keeps its layout.
pub const SHORTCUT_ABI_VERSION: u32 = 2;

/// Places in the array of pods. Place 0 is never given to a pod.
pub const PLACES: u32 = 4096;

/// [`PodSwitch::flags`]: bytes may go between an application and its own sidecar.
pub const REACH_POD: u32 = 1 << 0;
/// [`PodSwitch::flags`]: bytes may go between this pod's sidecar and another's on the node.
pub const REACH_NODE: u32 = 1 << 1;
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
    /// [`REACH_POD`], [`REACH_NODE`], [`INTO_APPLICATION`], [`FROM_APPLICATION`].
    pub flags: u32,
    reserved: u32,
}

impl PodSwitch {
    /// What a pod allows.
    pub const fn new(cookie: u64, flags: u32) -> Self {
        Self {
            cookie,
            flags,
            reserved: 0,
        }
    }

    /// Whether it is this pod's, and allows all of it.
    #[inline(always)]
    pub const fn allows(&self, cookie: u64, flags: u32) -> bool {
        self.cookie == cookie && self.flags & flags == flags
    }
}

/// One end of a connection as its own pod sees it. Both cookies are in it: no pod can write what another is looked up
/// under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct EndKey {
    /// The namespace this end is in.
    pub cookie: u64,
    /// The namespace that has the remote address, as the agent published it.
    pub peer_cookie: u64,
    /// This end's address.
    pub local: Addr,
    /// The other's.
    pub remote: Addr,
    /// This end's port, host byte order.
    pub local_port: u16,
    /// The other's.
    pub remote_port: u16,
    reserved: u32,
}

impl EndKey {
    /// A key from both ends.
    #[inline(always)]
    pub const fn new(
        (cookie, local, local_port): (u64, Addr, u16),
        (peer_cookie, remote, remote_port): (u64, Addr, u16),
    ) -> Self {
        Self {
            cookie,
            peer_cookie,
            local,
            remote,
            local_port,
            remote_port,
            reserved: 0,
        }
    }

    /// The same connection from its other end.
    #[inline(always)]
    #[must_use]
    pub const fn turned(&self) -> Self {
        Self::new(
            (self.peer_cookie, self.remote, self.remote_port),
            (self.cookie, self.local, self.local_port),
        )
    }
}

/// What one end tells the other of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EndRecord {
    /// Address of its `struct sock`, to be read only.
    pub sock: u64,
    /// Its socket cookie, which no other socket ever has: the key in the sockhash.
    pub id: u64,
    /// Address of its [`EndState`], to be read only.
    pub state: u64,
    /// [`IS_PROXY`] or nothing.
    pub role: u32,
    /// Its pod's place.
    pub place: u32,
}

/// [`EndState::flags`]: the socket is the proxy's.
pub const IS_PROXY: u32 = 1 << 0;
/// [`EndState::flags`]: it may become an end of a shortcut when it is established.
pub const CANDIDATE: u32 = 1 << 1;
/// [`EndState::flags`]: it is in the sockhash of those that send.
pub const SENDS: u32 = 1 << 2;
/// [`EndState::flags`]: it is in the sockhash of those that are sent to.
pub const RECEIVES: u32 = 1 << 3;
/// [`EndState::flags`]: [`EndState::redirected_at`] means something.
pub const HAS_REDIRECTED: u32 = 1 << 4;

/// How many messages were redirected and may be unread. The kernel tells bytes only; each message takes memory beside them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Queue {
    /// Bytes redirected so far, modulo 2³².
    pub bytes: u32,
    /// Messages redirected so far.
    pub messages: u32,
    /// Of those, the first so many are read.
    pub read: u32,
    /// More are, once this many bytes are read …
    pub mark_bytes: u32,
    /// … namely so many.
    pub mark_messages: u32,
    reserved: u32,
}

impl Queue {
    /// Nothing was redirected.
    pub const EMPTY: Self = Self {
        bytes: 0,
        messages: 0,
        read: 0,
        mark_bytes: 0,
        mark_messages: 0,
        reserved: 0,
    };

    /// The most messages that can be unread where so many bytes are. Messages are read in order, so as soon as the bytes
    /// up to a mark are, the messages up to it are too; then a new mark is set. It never says too few.
    #[inline(always)]
    pub const fn unread(&mut self, bytes: u32) -> u32 {
        if bytes == 0 {
            self.read = self.messages;
            self.mark_bytes = self.bytes;
            self.mark_messages = self.messages;
            return 0;
        }
        let after_mark = self.bytes.wrapping_sub(self.mark_bytes);
        if bytes <= after_mark {
            self.read = self.mark_messages;
            self.mark_bytes = self.bytes;
            self.mark_messages = self.messages;
        }
        self.messages.wrapping_sub(self.read)
    }

    /// A message is redirected.
    #[inline(always)]
    pub const fn push(&mut self, bytes: u32) {
        self.bytes = self.bytes.wrapping_add(bytes);
        self.messages = self.messages.wrapping_add(1);
    }
}

/// What is kept with a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct EndState {
    /// Not 0 once a hazard was seen on this end: a zero-copy sender, a reader who would get bytes in the wrong order, an
    /// upper layer protocol. It stays: the sender at either end looks before each message. Whoever sees one writes the
    /// same, so that two at once take nothing from each other.
    pub hazard: u32,
    /// [`READ_PLAINLY`], once somebody has.
    pub reader: u32,
    /// [`IS_PROXY`], [`CANDIDATE`], [`SENDS`], [`RECEIVES`], [`HAS_REDIRECTED`].
    pub flags: u32,
    /// The pod's place.
    pub place: u32,
    /// The other end's pod's.
    pub peer_place: u32,
    /// What this pod, and the other, must allow for a message from here.
    pub needs: u32,
    /// `write_seq` when a message was last redirected: nothing was sent by TCP since, if it is still the same.
    pub redirected_at: u32,
    /// How often the other end was not found.
    pub misses: u32,
    /// Address of the listening `struct sock` it was accepted by, to be read only; 0 where that was not seen to listen.
    pub listener: u64,
    /// What of this end's messages the receiver may not have read yet.
    pub queue: Queue,
    /// The other end, once it is known; its `sock` is 0 before.
    pub peer: EndRecord,
    /// Under which the other end is found.
    pub peer_key: EndKey,
}

/// [`EndState::reader`]: somebody read from it as `recv` does, not by splice(2), nor waiting for all that was asked for.
pub const READ_PLAINLY: u32 = 1;

impl EndState {
    /// Of a socket that is no end yet.
    #[inline(always)]
    pub const fn new(flags: u32) -> Self {
        Self {
            hazard: 0,
            reader: 0,
            flags,
            place: 0,
            peer_place: 0,
            needs: 0,
            redirected_at: 0,
            misses: 0,
            listener: 0,
            queue: Queue::EMPTY,
            peer: EndRecord {
                sock: 0,
                id: 0,
                state: 0,
                role: 0,
                place: 0,
            },
            peer_key: EndKey::new((0, Addr::UNSPECIFIED, 0), (0, Addr::UNSPECIFIED, 0)),
        }
    }
}

/// Numbers of the counters, one array element each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Count {
    /// Messages redirected.
    Redirected,
    /// Bytes in them.
    Bytes,
    /// Passed: bytes sent by TCP are unread.
    Unread,
    /// Passed: the receiver has more than the limit.
    Full,
    /// Passed: the machine's memory for TCP is scarce.
    Scarce,
    /// Passed: the receiver is just being read.
    Busy,
    /// Passed: a hazard was seen at one of the ends.
    Marked,
    /// Passed: nobody has read the receiver yet as the shortcut needs it.
    Unseen,
    /// Passed: a pod does not allow it.
    Off,
    /// Passed: the other end is not known.
    Alone,
    /// Sockets that became an end of a shortcut.
    Ends,
    /// Sockets that could not: no memory, no place, or the kernel refuses this one.
    Refused,
    /// Hazards seen on ends.
    Hazards,
}

impl Count {
    /// All of them, by number.
    pub const ALL: [Self; 13] = [
        Self::Redirected,
        Self::Bytes,
        Self::Unread,
        Self::Full,
        Self::Scarce,
        Self::Busy,
        Self::Marked,
        Self::Unseen,
        Self::Off,
        Self::Alone,
        Self::Ends,
        Self::Refused,
        Self::Hazards,
    ];

    /// Its name, as in status and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redirected => "redirected",
            Self::Bytes => "bytes",
            Self::Unread => "unread",
            Self::Full => "full",
            Self::Scarce => "scarce",
            Self::Busy => "busy",
            Self::Marked => "marked",
            Self::Unseen => "unseen",
            Self::Off => "off",
            Self::Alone => "alone",
            Self::Ends => "ends",
            Self::Refused => "refused",
            Self::Hazards => "hazards",
        }
    }
}

/// How many there are.
pub const COUNTS: usize = Count::ALL.len();

/// Redirect where the rule allows it.
pub const MODE_RULE: u32 = 0;
/// Let every message go by TCP: for tests of what membership alone does.
pub const MODE_PASS: u32 = 1;
/// Redirect whatever has a peer, as earlier projects did: for tests that must see it fail.
pub const MODE_NAIVE: u32 = 2;

/// What the agent fixes before it loads the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ShortcutSettings {
    /// [`MODE_RULE`], except in tests.
    pub mode: u32,
    /// Most memory that a receiver's unread messages take, bytes; a message beyond that goes by TCP.
    pub limit: u32,
    /// Not 0 where it is seen how applications read: then nothing is put into a socket before it was read plainly.
    pub watched: u32,
    /// Seconds of silence after which the kernel probes connections between two pods.
    pub keepalive: u32,
    /// Seconds between two such probes.
    pub keepalive_interval: u32,
    /// `struct sock` to `sk_backlog.rmem_alloc`, bytes; so are all that follow.
    pub sk_rmem: u32,
    /// `sk_lock.owned`.
    pub sk_owned: u32,
    /// `sk_rcvlowat`.
    pub sk_rcvlowat: u32,
    /// `sk_flags`.
    pub sk_flags: u32,
    /// The bit of `SOCK_ZEROCOPY` in it, by number.
    pub zerocopy_bit: u32,
    /// `struct tcp_sock` to `copied_seq`.
    pub tp_copied_seq: u32,
    /// `write_seq`.
    pub tp_write_seq: u32,
    /// `struct inet_connection_sock` to `icsk_ulp_ops`.
    pub icsk_ulp: u32,
    /// `struct task_struct` to `tgid`.
    pub task_tgid: u32,
    /// `cred`.
    pub task_cred: u32,
    /// `struct cred` to `fsuid`.
    pub cred_fsuid: u32,
    /// `fsgid`.
    pub cred_fsgid: u32,
    /// `struct sock` to `sk_socket`.
    pub sk_socket: u32,
    /// `struct socket` to `file`.
    pub socket_file: u32,
    /// `struct file` to `f_flags`.
    pub file_flags: u32,
    /// `struct socket` to `sk`.
    pub socket_sk: u32,
    /// `struct sock` to `sk_rcvbuf`.
    pub sk_rcvbuf: u32,
    /// `sk_sndbuf`.
    pub sk_sndbuf: u32,
    /// `__sk_common.skc_prot`.
    pub sk_prot: u32,
    /// `struct proto` to `memory_allocated`.
    pub proto_allocated: u32,
    /// `sysctl_mem`.
    pub proto_limits: u32,
    /// Percent of `tcp_mem`'s first value beyond which memory is scarce.
    pub memory_share: u32,
    reserved: u32,
}

impl ShortcutSettings {
    /// All zero.
    pub const NONE: Self = Self {
        mode: 0,
        limit: 0,
        watched: 0,
        keepalive: 0,
        keepalive_interval: 0,
        sk_rmem: 0,
        sk_owned: 0,
        sk_rcvlowat: 0,
        sk_flags: 0,
        zerocopy_bit: 0,
        tp_copied_seq: 0,
        tp_write_seq: 0,
        icsk_ulp: 0,
        task_tgid: 0,
        task_cred: 0,
        cred_fsuid: 0,
        cred_fsgid: 0,
        sk_socket: 0,
        socket_file: 0,
        file_flags: 0,
        socket_sk: 0,
        sk_rcvbuf: 0,
        sk_sndbuf: 0,
        sk_prot: 0,
        proto_allocated: 0,
        proto_limits: 0,
        memory_share: 0,
        reserved: 0,
    };
}

// What is pinned, and by which version. Another layout is another version.
const _: () = assert!(
    matches!((SHORTCUT_ABI_VERSION, LAYOUT), (2, [72, 16, 56, 32, 152])),
    "raise SHORTCUT_ABI_VERSION, and write here what its layout is"
);
const LAYOUT: [usize; 5] = [
    size_of::<Member>(),
    size_of::<PodSwitch>(),
    size_of::<EndKey>(),
    size_of::<EndRecord>(),
    size_of::<EndState>(),
];
// Not pinned.
const _: () = assert!(size_of::<ShortcutSettings>() == 112);
