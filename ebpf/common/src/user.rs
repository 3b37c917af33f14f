//! Lets the agent use the ABI structs as map keys and values.

use crate::{
    AddrKey, FlowKey, GroupKey, KernelOffsets, ListenerKey, Origin, PodRecord, PortKey, ProxyState,
    Sighting, SockState, row::RowCounts,
};

macro_rules! plain {
    ($($t:ty),+) => { $(
        // SAFETY: `repr(C)` or `repr(transparent)` over integers, without implicit padding (sizes are asserted beside
        // each type), so every byte is initialised and every bit pattern is valid.
        unsafe impl aya::Pod for $t {}
    )+ };
}

plain!(
    AddrKey,
    FlowKey,
    GroupKey,
    KernelOffsets,
    ListenerKey,
    Origin,
    PodRecord,
    PortKey,
    ProxyState,
    RowCounts,
    Sighting,
    SockState
);
