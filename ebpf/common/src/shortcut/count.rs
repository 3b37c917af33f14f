//! What the programs count.

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
    /// Hazards seen on ends, and on sockets that stayed with TCP for one.
    Hazards,
    /// Stayed with TCP: the kernel had no memory to keep something with the socket.
    NoStorage,
    /// Stayed with TCP: the kernel's memory could not be read.
    Unreadable,
    /// Stayed with TCP: the other address is of no pod of this node that takes part.
    Elsewhere,
    /// Stayed with TCP: the end that connected is no end of a shortcut.
    Unpaired,
    /// Stayed with TCP: an application's connection that does not go to its own proxy.
    Direct,
    /// Stayed with TCP: the pod does not allow it.
    Unwanted,
    /// Stayed with TCP: the application's calls block.
    Blocking,
    /// Stayed with TCP: it is not known yet whether the application's calls block.
    Learning,
    /// Listeners on a capture port that are not the proxy's.
    Foreign,
    /// Ends that are none any more.
    Closed,
}

impl Count {
    /// All of them, by number.
    pub const ALL: [Self; 23] = [
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
        Self::NoStorage,
        Self::Unreadable,
        Self::Elsewhere,
        Self::Unpaired,
        Self::Direct,
        Self::Unwanted,
        Self::Blocking,
        Self::Learning,
        Self::Foreign,
        Self::Closed,
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
            Self::NoStorage => "no-storage",
            Self::Unreadable => "unreadable",
            Self::Elsewhere => "elsewhere",
            Self::Unpaired => "unpaired",
            Self::Direct => "direct",
            Self::Unwanted => "unwanted",
            Self::Blocking => "blocking",
            Self::Learning => "learning",
            Self::Foreign => "foreign",
            Self::Closed => "closed",
        }
    }
}

/// How many there are.
pub const COUNTS: usize = Count::ALL.len();
