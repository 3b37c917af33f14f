//! What the programs tell the agent of network namespaces: hints, of which any may be lost.

/// How a program came upon a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Seen {
    /// A program was started in it.
    Exec = 1,
    /// A program in it called somebody.
    Connect = 2,
    /// A program in it listens.
    Listen = 3,
    /// The proxy of an armed pod listens for the first time: interception is on.
    Active = 4,
}

impl Seen {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Exec, Self::Connect, Self::Listen, Self::Active];

    /// The one with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|seen| *seen as u32 == number)
    }

    /// The stable spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Connect => "connect",
            Self::Listen => "listen",
            Self::Active => "active",
        }
    }
}

/// A namespace that was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Sighting {
    /// Its cookie.
    pub cookie: u64,
    /// The cgroup of the process that was seen; [`LISTENERS`] where the kernel does not tell.
    pub cgroup: u64,
    /// When, in nanoseconds of the monotonic clock.
    pub at: u64,
    /// The process that was seen in it, in the node's numbering; 0 where the kernel does not tell.
    pub pid: u32,
    /// [`Seen`], as its number.
    pub seen: u32,
}

const _: () = assert!(size_of::<Sighting>() == 32);

/// Who is not told of again for a while: a namespace as the processes of one cgroup use it. The runtime's own helpers may
/// have been in a pod's namespace before the pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct QuietKey {
    /// The namespace's cookie.
    pub cookie: u64,
    /// The cgroup, or [`EVERYBODY`].
    pub cgroup: u64,
}

/// Instead of a cgroup's id: whoever it is.
pub const EVERYBODY: u64 = 0;
/// Instead of a cgroup's id: whoever listens.
pub const LISTENERS: u64 = u64::MAX;

const _: () = assert!(size_of::<QuietKey>() == 16);

/// How long a namespace is not told of again, nanoseconds. The agent, once it knows that a namespace is no pod's, makes
/// it longer.
pub const QUIET_NS: u64 = 10_000_000_000;
