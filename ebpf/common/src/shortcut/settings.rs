//! What is fixed when the programs are loaded.

/// What the agent fixes before it loads the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ShortcutSettings {
    /// Most memory that a receiver's unread messages take, bytes; a message beyond that goes by TCP.
    pub limit: u32,
    /// Seconds of silence after which the kernel probes connections between two pods.
    pub keepalive: u32,
    /// Seconds between two such probes.
    pub keepalive_interval: u32,
    /// `struct sock` to `sk_backlog.rmem_alloc`, bytes; so are all that follow.
    pub sk_rmem: u32,
    /// `sk_lock.owned`.
    pub sk_owned: u32,
    /// `sk_rcvlowat`.
    pub sk_rcvlowat: u32,
    /// `sk_flags`.
    pub sk_flags: u32,
    /// The bit of `SOCK_ZEROCOPY` in it, by number.
    pub zerocopy_bit: u32,
    /// `struct tcp_sock` to `copied_seq`.
    pub tp_copied_seq: u32,
    /// `write_seq`.
    pub tp_write_seq: u32,
    /// `struct inet_connection_sock` to `icsk_ulp_ops`.
    pub icsk_ulp: u32,
    /// `struct task_struct` to `tgid`.
    pub task_tgid: u32,
    /// `mm`.
    pub task_mm: u32,
    /// `struct mm_struct` to `exe_file`.
    pub mm_exe_file: u32,
    /// `struct file` to `f_inode`.
    pub file_inode: u32,
    /// `struct inode` to `i_ino`.
    pub inode_number: u32,
    /// `struct task_struct` to `cred`.
    pub task_cred: u32,
    /// `struct cred` to `fsuid`.
    pub cred_fsuid: u32,
    /// `fsgid`.
    pub cred_fsgid: u32,
    /// `struct sock` to `sk_socket`.
    pub sk_socket: u32,
    /// `struct socket` to `file`.
    pub socket_file: u32,
    /// `struct file` to `f_flags`.
    pub file_flags: u32,
    /// `struct socket` to `sk`.
    pub socket_sk: u32,
    /// `struct sock` to `sk_rcvbuf`.
    pub sk_rcvbuf: u32,
    /// `sk_sndbuf`.
    pub sk_sndbuf: u32,
    /// `__sk_common.skc_prot`.
    pub sk_prot: u32,
    /// `struct proto` to `memory_allocated`.
    pub proto_allocated: u32,
    /// `sysctl_mem`.
    pub proto_limits: u32,
    /// Percent of `tcp_mem`'s first value beyond which memory is scarce.
    pub memory_share: u32,
    /// Most ends of one pod ([`super::ENDS_SHARE`]).
    pub ends_share: u32,
    /// Not 0: redirect whatever has a peer, as earlier projects did, for tests that must see it fail.
    #[cfg(feature = "test-switches")]
    pub naive: u32,
    /// Not 0: put bytes into applications that nobody has seen reading; those of tests read plainly.
    #[cfg(feature = "test-switches")]
    pub trusting: u32,
}

impl ShortcutSettings {
    /// All zero.
    pub const NONE: Self = Self {
        limit: 0,
        keepalive: 0,
        keepalive_interval: 0,
        sk_rmem: 0,
        sk_owned: 0,
        sk_rcvlowat: 0,
        sk_flags: 0,
        zerocopy_bit: 0,
        tp_copied_seq: 0,
        tp_write_seq: 0,
        icsk_ulp: 0,
        task_tgid: 0,
        task_mm: 0,
        mm_exe_file: 0,
        file_inode: 0,
        inode_number: 0,
        task_cred: 0,
        cred_fsuid: 0,
        cred_fsgid: 0,
        sk_socket: 0,
        socket_file: 0,
        file_flags: 0,
        socket_sk: 0,
        sk_rcvbuf: 0,
        sk_sndbuf: 0,
        sk_prot: 0,
        proto_allocated: 0,
        proto_limits: 0,
        memory_share: 0,
        ends_share: 0,
        #[cfg(feature = "test-switches")]
        naive: 0,
        #[cfg(feature = "test-switches")]
        trusting: 0,
    };
}

const SWITCHES: usize = if cfg!(feature = "test-switches") {
    8
} else {
    0
};
const _: () = assert!(size_of::<ShortcutSettings>() == 120 + SWITCHES);
