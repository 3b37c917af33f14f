//! The ends of connections.

use crate::Addr;

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
/// [`EndState::flags`]: any of the two says that it is in a sockhash.
pub const IN_SOCKHASH: u32 = SENDS | RECEIVES;
/// [`EndState::flags`]: [`EndState::redirected_at`] means something.
pub const HAS_REDIRECTED: u32 = 1 << 4;
/// [`EndState::flags`]: it is no end, and its round trips are told to learn whether its program blocks.
pub const WATCHED: u32 = 1 << 5;
/// [`EndState::flags`]: the pods of both ends are of one Kubernetes namespace.
pub const ONE_NAMESPACE: u32 = 1 << 6;

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
    /// How often `bytes` began anew.
    pub wraps: u32,
}

impl Queue {
    /// Nothing was redirected.
    pub const EMPTY: Self = Self {
        bytes: 0,
        messages: 0,
        read: 0,
        mark_bytes: 0,
        mark_messages: 0,
        wraps: 0,
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
        let (sum, began_anew) = self.bytes.overflowing_add(bytes);
        self.bytes = sum;
        self.wraps = self.wraps.wrapping_add(began_anew as u32);
        self.messages = self.messages.wrapping_add(1);
    }

    /// All bytes that were redirected.
    pub const fn total(&self) -> u64 {
        (self.wraps as u64) << 32 | self.bytes as u64
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
    /// [`IS_PROXY`], [`CANDIDATE`], [`SENDS`], [`RECEIVES`], [`HAS_REDIRECTED`], [`WATCHED`], [`ONE_NAMESPACE`].
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
    /// The application's program that connected it, as the inode of its file; 0 where it was accepted.
    pub program: u64,
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
            program: 0,
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

    /// The socket is connected anew, or listens. Only closing takes it out of a sockhash, and nothing takes a hazard back.
    #[inline(always)]
    pub const fn reuse(&mut self, flags: u32) {
        *self = Self {
            hazard: self.hazard,
            flags: flags | self.flags & IN_SOCKHASH,
            ..Self::new(0)
        };
    }
}
