//! Where the running kernel keeps what the programs read of it.

/// Offsets in bytes, from the kernel's BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct KernelOffsets {
    /// `task_struct.cred`.
    pub task_cred: u32,
    /// `cred.fsuid`.
    pub cred_fsuid: u32,
    /// `cred.fsgid`.
    pub cred_fsgid: u32,
    /// `sock.sk_socket`.
    pub sk_socket: u32,
    /// `socket.file`.
    pub socket_file: u32,
    /// `file.f_cred`.
    pub file_cred: u32,
    /// `task_struct.tgid`.
    pub task_tgid: u32,
    /// `task_struct.nsproxy`.
    pub task_nsproxy: u32,
    /// `nsproxy.net_ns`.
    pub nsproxy_net: u32,
    /// `net.net_cookie`.
    pub net_cookie: u32,
}

impl KernelOffsets {
    /// Kernel memory may not be read.
    pub const UNREADABLE: Self = Self {
        task_cred: 0,
        cred_fsuid: 0,
        cred_fsgid: 0,
        sk_socket: 0,
        socket_file: 0,
        file_cred: 0,
        task_tgid: 0,
        task_nsproxy: 0,
        nsproxy_net: 0,
        net_cookie: 0,
    };
}

const _: () = assert!(size_of::<KernelOffsets>() == 40);
