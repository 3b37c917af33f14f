//! Every map, and the constants the agent sets before it loads a program. The agent pins the maps by these names.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{
        HashMap, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf, SkStorage, SockHash,
    },
    macros::btf_map,
};
use sidestep_ebpf_common::{
    AddrKey, FlowKey, GroupKey, KernelOffsets, ListenerKey, Origin, PodRecord, PortKey, ProxyState,
    Sighting, SockState, flow::MAX_FLOWS, row::RowCounts, sighting::QuietKey,
};
use sidestep_ebpf_hook::constants;

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
pub static FLOWS: HashMap<FlowKey, Origin, MAX_FLOWS, LAZY> = HashMap::new();

/// How many of [`FLOWS`] are each armed pod's. Apart from [`PROXIES`], whose fields the agent must not write back.
#[btf_map]
pub static OPEN: HashMap<u64, i64, 4096, LAZY> = HashMap::new();

/// The proxies' listening sockets on their inbound port.
#[btf_map]
pub static LISTENERS: SockHash<ListenerKey, 65_536> = SockHash::new();

/// Namespaces that were seen, for the agent. Not pinned: an agent that ended reads nothing any more. Its size is a multiple of
/// a page's, which is 64 KiB on some arm64 kernels.
#[btf_map]
pub static SIGHTINGS: RingBuf<Sighting, 65_536> = RingBuf::new();

/// How many sightings did not fit. Not pinned.
#[btf_map]
pub static MISSED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Until when somebody is not told of again, in nanoseconds of the monotonic clock. Not pinned: a new agent wants to be
/// told of all.
#[btf_map]
pub static QUIET: LruHashMap<QuietKey, u64, 16_384> = LruHashMap::new();

/// Where the kernel keeps what the programs read of it. The agent takes the offsets from the running kernel's BTF and
/// puts them in before it loads a program.
#[unsafe(no_mangle)]
static KERNEL_OFFSETS: KernelOffsets = KernelOffsets::UNREADABLE;

/// Reads [`KERNEL_OFFSETS`].
pub static KERNEL: Kernel = Kernel;

/// See [`KERNEL`].
pub struct Kernel;

impl Kernel {
    /// Whether kernel memory may be read at all. The verifier knows the answer, and never sees the code that it rules
    /// out.
    #[inline(always)]
    pub fn readable(&self) -> bool {
        self.task_cred() != 0
    }

    constants!(
        KERNEL_OFFSETS:
        task_cred,
        cred_fsuid,
        cred_fsgid,
        sk_socket,
        socket_file,
        file_cred,
        task_tgid,
        task_nsproxy,
        nsproxy_net,
        net_cookie,
    );
}
