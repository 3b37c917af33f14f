//! The kernel's context structs and memory, read the only way the verifier accepts: one word at a time. The compiler
//! would merge neighbouring accesses, and loads of two branches into one at a computed offset, which is arithmetic on a
//! socket pointer. Volatile accesses prevent the first, `black_box` the second.

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_ops},
    helpers::{bpf_probe_read_kernel, generated::bpf_sk_storage_get},
    programs::SockOpsContext,
};
use sidestep_ebpf_common::{
    Addr,
    shortcut::{Count, EndState},
};

use crate::maps::{STATES, TALLY};

/// AF_INET.
pub const AF_INET: u32 = 2;
/// AF_INET6.
pub const AF_INET6: u32 = 10;

/// One volatile load of a context field.
macro_rules! load {
    ($ptr:expr, $($field:tt)+) => {
        // SAFETY: the kernel hands a valid context; the verifier checks field and width.
        unsafe { core::ptr::read_volatile(&raw const (*$ptr).$($field)+) }
    };
}
/// Four loads: an IPv6 address.
macro_rules! load6 {
    ($ptr:expr, $field:ident) => {
        Addr([
            load!($ptr, $field[0]),
            load!($ptr, $field[1]),
            load!($ptr, $field[2]),
            load!($ptr, $field[3]),
        ])
    };
}
pub(crate) use load;

/// Both ends of a socket. Read in one place: reads in several arms would be merged into one at a computed offset.
#[derive(Clone, Copy)]
pub struct Ends {
    pub local: Addr,
    pub local_port: u16,
    pub remote: Addr,
    pub remote_port: u16,
}

impl Ends {
    #[inline(always)]
    pub fn of(ops: *mut bpf_sock_ops, family: u32) -> Self {
        let (local, remote) = if family == AF_INET {
            (
                Addr::v4(black_box(load!(ops, local_ip4))),
                Addr::v4(black_box(load!(ops, remote_ip4))),
            )
        } else {
            (load6!(ops, local_ip6), load6!(ops, remote_ip6))
        };
        Self {
            local,
            local_port: load!(ops, local_port) as u16,
            remote,
            // In network byte order, in the lower half of the word.
            remote_port: u32::from_be(load!(ops, remote_port)) as u16,
        }
    }
}

/// The callbacks that were asked for of this socket, by whichever program.
#[inline(always)]
pub fn callbacks(ctx: &SockOpsContext) -> u32 {
    load!(ctx.ops, bpf_sock_ops_cb_flags)
}

/// Asks for these callbacks and no others: what other programs asked for has to be among them. Whether they will come.
#[inline(always)]
pub fn set_callbacks(ctx: &SockOpsContext, flags: u32) -> bool {
    ctx.set_cb_flags(flags.cast_signed()).is_ok()
}

/// The socket of a `sockops` callback.
#[inline(always)]
pub fn ops_sock(ops: *mut bpf_sock_ops) -> Option<*mut bpf_sock> {
    let sk = load!(ops, __bindgen_anon_2.sk);
    if sk.is_null() { None } else { Some(sk) }
}

/// What is kept with a socket.
#[inline(always)]
pub fn state<'a, T>(sk: *mut T) -> Option<&'a mut EndState> {
    storage(sk, 0)
}

/// The same, made (all zero) where it is missing. `None` only where the kernel has no memory.
#[inline(always)]
pub fn state_or_new<'a, T>(sk: *mut T) -> Option<&'a mut EndState> {
    const CREATE: u64 = 1;
    storage(sk, CREATE)
}

#[inline(always)]
fn storage<'a, T>(sk: *mut T, flags: u64) -> Option<&'a mut EndState> {
    let map = (&raw const STATES).cast_mut().cast::<c_void>();
    // SAFETY: the helper returns null or the value, which lives as long as the socket, and that outlives the hook. Two
    // CPUs may write it at once; each field is a word of its own, and what belongs together is written under the
    // socket's lock.
    unsafe {
        bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags)
            .cast::<EndState>()
            .as_mut()
    }
}

/// The address of something that the verifier allows no arithmetic on: read back from the stack it is a number.
#[inline(always)]
pub fn address_of<T>(pointer: *const T) -> Option<u64> {
    let on_stack = pointer as u64;
    // SAFETY: probe reads check the address.
    unsafe { bpf_probe_read_kernel(&raw const on_stack) }.ok()
}

/// A word of kernel memory.
#[inline(always)]
pub fn peek(base: u64, offset: u32) -> Option<u32> {
    // SAFETY: probe reads check the address; the offsets are the running kernel's.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const u32) }.ok()
}

/// A pointer, or two words, in kernel memory.
#[inline(always)]
pub fn peek_long(base: u64, offset: u32) -> Option<u64> {
    // SAFETY: as for `peek`.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const u64) }.ok()
}

/// Notes a hazard on an end, for good.
#[inline(always)]
pub fn mark(state: &mut EndState) {
    state.hazard = 1;
    count(Count::Hazards);
}

/// Counts something once.
#[inline(always)]
pub fn count(what: Count) {
    add(what, 1);
}

/// Counts something.
#[inline(always)]
pub fn add(what: Count, amount: u64) {
    if let Some(slot) = TALLY.get_ptr_mut(what as u32) {
        // SAFETY: a live value of this CPU's own.
        unsafe { *slot += amount };
    }
}
