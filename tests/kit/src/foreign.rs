//! BPF programs of others on the cgroups above the pods': a service load balancer, as network plug-ins have it, and some that
//! undo what ours did.

use std::{
    fs::File,
    mem::size_of,
    net::Ipv4Addr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::cgroup::Cgroup;

const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_DETACH: i32 = 9;
const ALLOW_MULTI: u32 = 2;
/// The helper's number.
const SOCK_OPS_CB_FLAGS_SET: u32 = 59;
/// Offsets in `struct bpf_sock_addr`.
const USER_IP4: u16 = 4;
const USER_PORT: u16 = 24;
/// What the programs are called.
const NAME: &str = "ss_foreign_lb";

/// What else may be attached beside it and below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Others may attach to the same hook.
    Shared,
    /// Nobody else may, in the whole subtree.
    Exclusive,
}

/// A program on connect4 that sends connections for one address to another; detached when dropped.
#[derive(Debug)]
pub struct LoadBalancer {
    _attached: Attached,
}

impl LoadBalancer {
    /// Its name, as the kernel shows it.
    pub const NAME: &str = NAME;

    /// Loads and attaches it.
    pub fn attach(cgroup: &Cgroup, from: Ipv4Addr, to: Ipv4Addr, sharing: Sharing) -> Self {
        let word = |address: Ipv4Addr| u32::from_ne_bytes(address.octets());
        let code = rewrite(USER_IP4, word(from), word(to));
        Self {
            _attached: Attached::new(cgroup, CONNECT4, &code, sharing),
        }
    }
}

/// A program on connect4 that sends connections for one port to another; detached when dropped.
#[derive(Debug)]
pub struct PortChanger {
    _attached: Attached,
}

impl PortChanger {
    /// Loads and attaches it. Above other programs it has the last word.
    pub fn attach(cgroup: &Cgroup, from: u16, to: u16) -> Self {
        let code = rewrite(USER_PORT, from.to_be().into(), to.to_be().into());
        Self {
            _attached: Attached::new(cgroup, CONNECT4, &code, Sharing::Shared),
        }
    }
}

/// A program on `sockops` that takes away whatever callbacks others asked for; detached when dropped.
#[derive(Debug)]
pub struct CallbackEraser {
    _attached: Attached,
}

impl CallbackEraser {
    /// Loads and attaches it. Above other programs it has the last word.
    pub fn attach(cgroup: &Cgroup) -> Self {
        let code = [
            // r2 = 0
            instruction(0xb7, 2, 0, 0, 0),
            // bpf_sock_ops_cb_flags_set(r1, r2)
            instruction(0x85, 0, 0, 0, SOCK_OPS_CB_FLAGS_SET),
            // r0 = 1
            instruction(0xb7, 0, 0, 0, 1),
            // exit
            instruction(0x95, 0, 0, 0, 0),
        ];
        Self {
            _attached: Attached::new(cgroup, SOCK_OPS, &code, Sharing::Shared),
        }
    }
}

/// A type of program and where it attaches, as the kernel numbers them.
#[derive(Clone, Copy, Debug)]
struct Hook {
    kind: u32,
    at: u32,
}

const CONNECT4: Hook = Hook { kind: 18, at: 10 };
const SOCK_OPS: Hook = Hook { kind: 13, at: 3 };

/// A program that is attached to a cgroup; detached when dropped.
#[derive(Debug)]
struct Attached {
    program: OwnedFd,
    cgroup: File,
    hook: Hook,
}

impl Attached {
    fn new(cgroup: &Cgroup, hook: Hook, code: &[u64], sharing: Sharing) -> Self {
        let flags = match sharing {
            Sharing::Shared => ALLOW_MULTI,
            Sharing::Exclusive => 0,
        };
        let attached = Self {
            program: load(hook, code),
            cgroup: File::open(cgroup.path()).expect("a cgroup of ours"),
            hook,
        };
        bpf(PROG_ATTACH, &attached.attachment(flags)).expect("the program can be attached");
        attached
    }

    fn attachment(&self, flags: u32) -> Attachment {
        Attachment {
            target: self.cgroup.as_raw_fd(),
            program: self.program.as_raw_fd(),
            hook: self.hook.at,
            flags,
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Err(error) = bpf(PROG_DETACH, &self.attachment(0)) {
            eprintln!("{NAME} was not detached: {error}");
        }
    }
}

/// The start of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attachment {
    target: i32,
    program: i32,
    hook: u32,
    flags: u32,
}

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Loading {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    hook: u32,
}

/// `if (ctx->field == from) ctx->field = to; return 1;`
fn rewrite(field: u16, from: u32, to: u32) -> [u64; 6] {
    [
        // w2 = *(u32 *)(r1 + field)
        instruction(0x61, 2, 1, field, 0),
        // if w2 != from goto the end
        instruction(0x56, 2, 0, 2, from),
        // w2 = to
        instruction(0xb4, 2, 0, 0, to),
        // *(u32 *)(r1 + field) = w2
        instruction(0x63, 1, 2, field, 0),
        // r0 = 1
        instruction(0xb7, 0, 0, 0, 1),
        // exit
        instruction(0x95, 0, 0, 0, 0),
    ]
}

fn instruction(code: u8, to: u8, from: u8, offset: u16, immediate: u32) -> u64 {
    let [low, high] = offset.to_ne_bytes();
    let [a, b, c, d] = immediate.to_ne_bytes();
    u64::from_ne_bytes([code, from << 4 | to, low, high, a, b, c, d])
}

fn load(hook: Hook, code: &[u64]) -> OwnedFd {
    let mut name = [0; 16];
    name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    let loading = Loading {
        kind: hook.kind,
        instructions: u32::try_from(code.len()).expect("a short program"),
        code: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
        interface: 0,
        hook: hook.at,
    };
    let fd = bpf(PROG_LOAD, &loading).expect("the program can be loaded");
    // SAFETY: the descriptor is new, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn bpf<T>(command: i32, attribute: &T) -> std::io::Result<i32> {
    // SAFETY: the attribute is as long as given, and what it points to lives until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attribute),
            size_of::<T>(),
        )
    };
    match i32::try_from(result) {
        Ok(fd @ 0..) => Ok(fd),
        _ => Err(std::io::Error::last_os_error()),
    }
}
