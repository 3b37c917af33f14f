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
