//! Lets the agent use the ABI structs as map keys and values.

use crate::{
    Addr, AddrKey, FlowKey, GroupKey, KernelOffsets, ListenerKey, Origin, PodRecord, PortKey,
    ProxyState, Sighting, SockState,
    row::RowCounts,
    shortcut::{EndKey, EndRecord, EndState, Member, PodSwitch, ShortcutSettings},
    sighting::QuietKey,
};

macro_rules! plain {
    ($($t:ty),+) => { $(
        // SAFETY: `repr(C)` or `repr(transparent)` over integers, without implicit padding (sizes are asserted beside
        // each type), so every byte is initialised and every bit pattern is valid.
        unsafe impl aya::Pod for $t {}
    )+ };
}

plain!(
    Addr,
    AddrKey,
    EndKey,
    EndRecord,
    EndState,
    FlowKey,
    GroupKey,
    KernelOffsets,
    ListenerKey,
    Member,
    Origin,
    PodRecord,
    PodSwitch,
    PortKey,
    ProxyState,
    QuietKey,
    RowCounts,
    ShortcutSettings,
    Sighting,
    SockState
);
