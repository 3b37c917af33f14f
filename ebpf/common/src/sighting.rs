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
    /// When, in nanoseconds of the monotonic clock.
    pub at: u64,
    /// The process that was seen in it, in the node's numbering; 0 where the kernel does not tell.
    pub pid: u32,
    /// [`Seen`], as its number.
    pub seen: u32,
}

const _: () = assert!(size_of::<Sighting>() == 24);

/// How long a namespace is not told of again, nanoseconds. The agent, once it knows that a namespace is no pod's, makes
/// it longer.
pub const QUIET_NS: u64 = 10_000_000_000;
