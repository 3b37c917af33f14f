//! BPF programs of others on the cgroups above the pods': a service load balancer, as network plug-ins have it.

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
const CGROUP_SOCK_ADDR: u32 = 18;
const CGROUP_INET4_CONNECT: u32 = 10;
const ALLOW_MULTI: u32 = 2;

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
    program: OwnedFd,
    cgroup: File,
}

impl LoadBalancer {
    /// Its name, as the kernel shows it.
    pub const NAME: &str = "ss_foreign_lb";

    /// Loads and attaches it.
    pub fn attach(cgroup: &Cgroup, from: Ipv4Addr, to: Ipv4Addr, sharing: Sharing) -> Self {
        let program = load(&rewrite(from, to));
        let cgroup = File::open(cgroup.path()).expect("a cgroup of ours");
        let flags = match sharing {
            Sharing::Shared => ALLOW_MULTI,
            Sharing::Exclusive => 0,
        };
        let balancer = Self { program, cgroup };
        bpf(PROG_ATTACH, &balancer.attachment(flags)).expect("the program can be attached");
        balancer
    }

    fn attachment(&self, flags: u32) -> Attachment {
        Attachment {
            target: self.cgroup.as_raw_fd(),
            program: self.program.as_raw_fd(),
            hook: CGROUP_INET4_CONNECT,
            flags,
        }
    }
}

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        if let Err(error) = bpf(PROG_DETACH, &self.attachment(0)) {
            eprintln!("{} was not detached: {error}", Self::NAME);
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

/// `if (ctx->user_ip4 == from) ctx->user_ip4 = to; return 1;`
fn rewrite(from: Ipv4Addr, to: Ipv4Addr) -> [u64; 6] {
    const USER_IP4: u16 = 4;
    let immediate = |address: Ipv4Addr| u32::from_ne_bytes(address.octets());
    [
        // w2 = *(u32 *)(r1 + user_ip4)
        instruction(0x61, 2, 1, USER_IP4, 0),
        // if w2 != from goto the end
        instruction(0x56, 2, 0, 2, immediate(from)),
        // w2 = to
        instruction(0xb4, 2, 0, 0, immediate(to)),
        // *(u32 *)(r1 + user_ip4) = w2
        instruction(0x63, 1, 2, USER_IP4, 0),
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

fn load(code: &[u64]) -> OwnedFd {
    let mut name = [0; 16];
    name[..LoadBalancer::NAME.len()].copy_from_slice(LoadBalancer::NAME.as_bytes());
    let loading = Loading {
        kind: CGROUP_SOCK_ADDR,
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
        hook: CGROUP_INET4_CONNECT,
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
