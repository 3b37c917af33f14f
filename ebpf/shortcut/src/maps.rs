//! Every map of the shortcut, and the constants the agent sets before it loads a program. The agent pins the maps by
//! these names.

use aya_ebpf::{
    bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE},
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, SockHash},
    macros::btf_map,
};
use sidestep_ebpf_common::{
    Addr,
    shortcut::{
        COUNTS, EndKey, EndRecord, EndState, MAX_ENDS, MAX_MANNERS, Member, PLACES, PodSwitch,
        ShortcutSettings,
    },
};
use sidestep_ebpf_hook::constants;

const LAZY: usize = BPF_F_NO_PREALLOC as usize;

/// Pods that take part, by network namespace cookie.
#[btf_map]
pub static MEMBERS: HashMap<u64, Member, 4096, LAZY> = HashMap::new();

/// What each pod allows now, by its place.
#[btf_map]
pub static SWITCHES: Array<PodSwitch, { PLACES as usize }> = Array::new();

/// The process of each pod's proxy, by its place.
#[btf_map]
pub static PROXY_PROCESSES: Array<u32, { PLACES as usize }> = Array::new();

/// Which pod of the node has an address. An address that two pods claim is not in it.
#[btf_map]
pub static ADDRESSES: HashMap<Addr, u64, 65_536, LAZY> = HashMap::new();

/// Whether the sockets of an application block, as far as it was seen. What is crowded out is learnt anew.
#[btf_map]
pub static MANNERS: LruHashMap<Whose, u32, MAX_MANNERS> = LruHashMap::new();

/// How many of [`MANNERS`] are each pod's, by its place. What was crowded out counts for as long as the pod is there.
#[btf_map]
pub static MANNERS_OF: Array<i64, { PLACES as usize }> = Array::new();

/// Whose connections are alike.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Whose {
    cookie: u64,
    /// The inode of the program that connected, or the port that accepted.
    which: u64,
}

/// In place of an inode, which no file system has: a port.
const PORT: u64 = 1 << 63;

impl Whose {
    /// What is accepted at a port of this namespace.
    #[inline(always)]
    pub const fn port(cookie: u64, port: u16) -> Self {
        Self {
            cookie,
            which: PORT | port as u64,
        }
    }

    /// What a program connects in this namespace.
    #[inline(always)]
    pub const fn program(cookie: u64, program: u64) -> Self {
        Self {
            cookie,
            which: program,
        }
    }
}

/// Ends of connections that may be shortcut, from establishment until their socket is closed.
#[btf_map]
pub static ENDS: HashMap<EndKey, EndRecord, MAX_ENDS, LAZY> = HashMap::new();

/// How many of [`ENDS`] the programs made for each pod, by its place, less those that they took back.
#[btf_map]
pub static ENDS_OF: Array<i64, { PLACES as usize }> = Array::new();

/// How many of these went without a program: the agent took them back, and writes this alone.
#[btf_map]
pub static ENDS_SWEPT: Array<i64, { PLACES as usize }> = Array::new();

/// The sockets into which bytes may be put, by socket cookie. No program is attached to it: who only receives keeps
/// TCP's own way to send.
#[btf_map]
pub static RECEIVERS: SockHash<u64, { MAX_ENDS / 2 }> = SockHash::new();

/// The sockets whose messages are looked at. The program on it decides each.
#[btf_map]
pub static SENDERS: SockHash<u64, { MAX_ENDS / 2 }> = SockHash::new();

/// What happened, per CPU.
#[btf_map]
pub static TALLY: PerCpuArray<[u64; COUNTS], 1> = PerCpuArray::new();

/// For the self-test alone: where it tries to put an MPTCP listener.
#[btf_map]
pub static MPTCP_SOCKETS: SockHash<u64, 1> = SockHash::new();

/// For the self-test alone: what the kernel said to that.
#[btf_map]
pub static MPTCP_ANSWER: Array<i64, 1> = Array::new();

/// What is kept with a socket. A connection that a listening socket accepts starts with a copy of the listener's.
#[btf_map]
pub static STATES: Storage<EndState> = Storage::new();

/// Socket storage that is copied from a listening socket to those it accepts, which the library's type does not offer.
#[repr(C)]
pub struct Storage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the pointers are types for the loader; nothing is ever read through them.
unsafe impl<T> Sync for Storage<T> {}

impl<T> Storage<T> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }
}

/// Set by the agent.
#[unsafe(no_mangle)]
static SETTINGS: ShortcutSettings = ShortcutSettings::NONE;

/// Reads [`SETTINGS`].
pub static CONFIG: Config = Config;

/// See [`CONFIG`].
pub struct Config;

impl Config {
    constants!(
        SETTINGS:
        limit,
        keepalive,
        keepalive_interval,
        sk_rmem,
        sk_owned,
        sk_rcvlowat,
        sk_flags,
        zerocopy_bit,
        tp_copied_seq,
        tp_write_seq,
        icsk_ulp,
        task_tgid,
        task_mm,
        mm_exe_file,
        file_inode,
        inode_number,
        task_cred,
        cred_fsuid,
        cred_fsgid,
        sk_socket,
        socket_file,
        file_flags,
        socket_sk,
        sk_rcvbuf,
        sk_sndbuf,
        sk_prot,
        proto_allocated,
        proto_limits,
        memory_share,
        ends_share,
    );
    #[cfg(feature = "test-switches")]
    constants!(SETTINGS: naive, trusting,);
}
