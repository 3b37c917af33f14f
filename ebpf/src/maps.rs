//! Every map, and the constants the agent sets before it loads a program. The agent pins the maps by these names.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{HashMap, LpmTrie, PerCpuHashMap, SkStorage, SockHash},
    macros::btf_map,
};
use sidestep_ebpf_common::{
    AddrKey, FlowKey, GroupKey, ListenerKey, Origin, PodRecord, PortKey, ProxyState, SockState,
    row::RowCounts,
};

const LAZY: usize = BPF_F_NO_PREALLOC as usize;

/// Armed pods by network namespace cookie: the commit record.
#[btf_map]
pub static PODS: HashMap<u64, PodRecord, 4096, LAZY> = HashMap::new();

/// The proxy of each armed pod.
#[btf_map]
pub static PROXIES: HashMap<u64, ProxyState, 4096, LAZY> = HashMap::new();

/// What each row decided, per pod and CPU.
#[btf_map]
pub static COUNTS: PerCpuHashMap<u64, RowCounts, 4096, LAZY> = PerCpuHashMap::new();

/// Port sets. The value means nothing: a match is membership.
#[btf_map]
pub static PORTS: LpmTrie<PortKey, u32, 1_048_576> = LpmTrie::new();

/// Address sets.
#[btf_map]
pub static ADDRS: LpmTrie<AddrKey, u32, 1_048_576> = LpmTrie::new();

/// Group sets.
#[btf_map]
pub static GROUPS: HashMap<GroupKey, u32, 65_536, LAZY> = HashMap::new();

/// What is remembered with a socket.
#[btf_map]
pub static SOCKS: SkStorage<SockState> = SkStorage::new();

/// Original destinations of captured connections, from connect until the client's socket is closed.
#[btf_map]
pub static FLOWS: HashMap<FlowKey, Origin, 524_288, LAZY> = HashMap::new();

/// The proxies' listening sockets on their inbound port.
#[btf_map]
pub static LISTENERS: SockHash<ListenerKey, 65_536> = SockHash::new();

/// Offset of `task_struct.cred`; 0 where kernel memory may not be read.
#[unsafe(no_mangle)]
static TASK_CRED: u32 = 0;
/// Offset of `cred.fsuid`.
#[unsafe(no_mangle)]
static CRED_FSUID: u32 = 0;
/// Offset of `cred.fsgid`.
#[unsafe(no_mangle)]
static CRED_FSGID: u32 = 0;

macro_rules! constant {
    ($(#[$doc:meta])* $name:ident = $of:ident: $t:ty) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name() -> $t {
            // SAFETY: the static is initialised and never written while the program runs. Volatile, because the
            // compiler would otherwise take the 0 above for the value.
            unsafe { core::ptr::read_volatile(&raw const $of) }
        }
    };
}

constant!(
    /// See [`TASK_CRED`].
    task_cred = TASK_CRED: u32
);
constant!(
    /// See [`CRED_FSUID`].
    cred_fsuid = CRED_FSUID: u32
);
constant!(
    /// See [`CRED_FSGID`].
    cred_fsgid = CRED_FSGID: u32
);
