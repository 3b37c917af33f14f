//! Where the running kernel keeps what the programs read: from its BTF, put into the programs before they are loaded.

use sidestep_ebpf_common::shortcut::{ENDS_SHARE, ShortcutSettings};
use sidestep_kernel::btf::Types;

use super::ShortcutError;

/// What only tests want of the programs.
#[cfg(feature = "test-switches")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// Redirect a message whenever there is another end, as earlier projects did: tests must see that fail.
    pub naive: bool,
    /// Put bytes into applications though no program on the kernel's functions sees how they read. Redirected bytes are for
    /// readers who use `recv` and take what there is: splice(2) never sees them, and `MSG_WAITALL` may get later ones first.
    pub trusting: bool,
}

#[cfg(feature = "test-switches")]
impl Switches {
    /// For tests whose own programs read.
    pub const TRUSTING: Self = Self {
        naive: false,
        trusting: true,
    };
}

/// What a receiver's unread messages may take by default, bytes.
pub const LIMIT: u32 = 1 << 20;

/// What can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Most memory of a receiver's unread messages beside what TCP itself allows, bytes.
    pub limit: u32,
    /// Percent of `tcp_mem`'s first value: where all TCP sockets have more, what is not read at once goes by TCP.
    pub memory_share: u32,
    /// Most ends of one pod: its connections beyond that stay with TCP.
    pub ends_share: u32,
    /// Seconds of silence on the way between two pods before the kernel asks whether the other is still there.
    pub keepalive: u32,
    /// Seconds between two such questions.
    pub keepalive_interval: u32,
    /// What only tests want.
    #[cfg(feature = "test-switches")]
    pub switches: Switches,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limit: LIMIT,
            memory_share: 100,
            ends_share: ENDS_SHARE,
            keepalive: 240,
            keepalive_interval: 15,
            #[cfg(feature = "test-switches")]
            switches: Switches::default(),
        }
    }
}

/// Finds everything, or says what is not to be found.
pub(super) fn find(options: Options) -> Result<ShortcutSettings, ShortcutError> {
    let Options {
        limit,
        memory_share,
        ends_share,
        keepalive,
        keepalive_interval,
        #[cfg(feature = "test-switches")]
        switches,
    } = options;
    let btf = Types::read()?;
    let at = |name, member, what| btf.offset(name, member).ok_or(ShortcutError::Unknown(what));
    let mut settings = ShortcutSettings::NONE;
    settings.limit = limit;
    settings.memory_share = memory_share;
    settings.ends_share = ends_share;
    settings.keepalive = keepalive;
    settings.keepalive_interval = keepalive_interval;
    #[cfg(feature = "test-switches")]
    {
        settings.naive = u32::from(switches.naive);
        settings.trusting = u32::from(switches.trusting);
    }
    settings.sk_rmem = at("sock", "sk_backlog.rmem_alloc", "sk_rmem_alloc of a socket")?;
    settings.sk_owned = at("sock", "sk_lock.owned", "sk_lock.owned of a socket")?;
    settings.sk_rcvlowat = at("sock", "sk_rcvlowat", "sk_rcvlowat of a socket")?;
    settings.sk_flags = at("sock", "__sk_common.skc_flags", "sk_flags of a socket")?;
    settings.zerocopy_bit = btf
        .enumerator("sock_flags", "SOCK_ZEROCOPY")
        .ok_or(ShortcutError::Unknown("SOCK_ZEROCOPY"))?;
    settings.tp_copied_seq = at("tcp_sock", "copied_seq", "copied_seq of a TCP socket")?;
    settings.tp_write_seq = at("tcp_sock", "write_seq", "write_seq of a TCP socket")?;
    settings.icsk_ulp = at(
        "inet_connection_sock",
        "icsk_ulp_ops",
        "icsk_ulp_ops of a TCP socket",
    )?;
    settings.task_tgid = at("task_struct", "tgid", "tgid of a task")?;
    settings.task_mm = at("task_struct", "mm", "mm of a task")?;
    settings.mm_exe_file = at("mm_struct", "exe_file", "exe_file of a process")?;
    settings.file_inode = at("file", "f_inode", "f_inode of a file")?;
    settings.inode_number = at("inode", "i_ino", "i_ino of an inode")?;
    settings.task_cred = at("task_struct", "cred", "cred of a task")?;
    settings.cred_fsuid = at("cred", "fsuid", "fsuid of a cred")?;
    settings.cred_fsgid = at("cred", "fsgid", "fsgid of a cred")?;
    settings.sk_socket = at("sock", "sk_socket", "sk_socket of a socket")?;
    settings.socket_file = at("socket", "file", "file of a socket")?;
    settings.file_flags = at("file", "f_flags", "f_flags of a file")?;
    settings.sk_rcvbuf = at("sock", "sk_rcvbuf", "sk_rcvbuf of a socket")?;
    settings.sk_sndbuf = at("sock", "sk_sndbuf", "sk_sndbuf of a socket")?;
    settings.sk_prot = at("sock", "__sk_common.skc_prot", "skc_prot of a socket")?;
    settings.proto_allocated = at(
        "proto",
        "memory_allocated",
        "memory_allocated of a protocol",
    )?;
    settings.proto_limits = at("proto", "sysctl_mem", "sysctl_mem of a protocol")?;
    settings.socket_sk = at("socket", "sk", "sk of a socket")?;
    Ok(settings)
}
