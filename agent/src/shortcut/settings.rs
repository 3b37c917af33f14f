//! Where the running kernel keeps what the programs read: from its BTF, put into the programs before they are loaded.

use sidestep_ebpf_common::shortcut::{MODE_NAIVE, MODE_PASS, MODE_RULE, ShortcutSettings};
use sidestep_kernel::btf::Types;

use super::ShortcutError;

/// What the programs do with a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Redirect it where order and memory allow it.
    #[default]
    Rule,
    /// Let TCP carry it: what being in a sockhash does by itself.
    Pass,
    /// Redirect it whenever there is another end, as earlier projects did. Only for tests that must see that fail.
    Naive,
}

/// Who sees how an application reads its sockets. Redirected bytes are for readers who use `recv` and take what there is:
/// splice(2) never sees them, and `MSG_WAITALL` may get later ones first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Readers {
    /// Programs on the kernel's own functions. Where it does not take those, nothing is put into applications.
    #[default]
    Watched,
    /// Nobody, for they are known. Only for tests.
    Trusted,
}

/// What a receiver's unread messages may take by default, bytes.
pub const LIMIT: u32 = 1 << 20;

/// What can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// [`Mode::Rule`], except in tests.
    pub mode: Mode,
    /// Most memory of a receiver's unread messages beside what TCP itself allows, bytes.
    pub limit: u32,
    /// Percent of `tcp_mem`'s first value: where all TCP sockets have more, what is not read at once goes by TCP.
    pub memory_share: u32,
    /// Who sees how an application reads its sockets.
    pub readers: Readers,
    /// Seconds of silence on the way between two pods before the kernel asks whether the other is still there.
    pub keepalive: u32,
    /// Seconds between two such questions.
    pub keepalive_interval: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::Rule,
            limit: LIMIT,
            memory_share: 100,
            readers: Readers::Watched,
            keepalive: 240,
            keepalive_interval: 15,
        }
    }
}

/// Finds everything, or says what is not to be found.
pub(super) fn find(options: Options) -> Result<ShortcutSettings, ShortcutError> {
    let Options {
        mode,
        limit,
        memory_share,
        readers,
        keepalive,
        keepalive_interval,
    } = options;
    let btf = Types::read()?;
    let at = |name, member, what| btf.offset(name, member).ok_or(ShortcutError::Unknown(what));
    let mut settings = ShortcutSettings::NONE;
    settings.mode = match mode {
        Mode::Rule => MODE_RULE,
        Mode::Pass => MODE_PASS,
        Mode::Naive => MODE_NAIVE,
    };
    settings.limit = limit;
    settings.memory_share = memory_share;
    settings.watched = u32::from(readers == Readers::Watched);
    settings.keepalive = keepalive;
    settings.keepalive_interval = keepalive_interval;
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
