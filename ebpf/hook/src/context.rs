//! The kernel's context structs, read and written the only way the verifier accepts: one word at a time. The compiler
//! would merge neighbouring accesses, and loads of two branches into one at a computed offset, which is arithmetic on a
//! socket pointer. Volatile accesses prevent the first, `black_box` the second.

use aya_ebpf::{
    bindings::{bpf_sock, bpf_sock_ops},
    helpers::generated::bpf_get_netns_cookie,
    programs::SockOpsContext,
};

/// One volatile load of a context field.
#[macro_export]
macro_rules! load {
    ($ptr:expr, $($field:tt)+) => {{
        let context = $ptr;
        // SAFETY: the kernel hands a valid context; the verifier checks field and width.
        unsafe { core::ptr::read_volatile(&raw const (*context).$($field)+) }
    }};
}

/// One volatile store to a context field.
#[macro_export]
macro_rules! store {
    ($ptr:expr, $($field:ident).+ $([$i:literal])? = $value:expr) => {{
        let (context, value) = ($ptr, $value);
        // SAFETY: as for `load!`.
        unsafe { core::ptr::write_volatile(&raw mut (*context).$($field).+ $([$i])?, value) }
    }};
}

/// Four loads: an IPv6 address.
#[macro_export]
macro_rules! load6 {
    ($ptr:expr, $field:ident) => {
        sidestep_ebpf_common::Addr([
            $crate::load!($ptr, $field[0]),
            $crate::load!($ptr, $field[1]),
            $crate::load!($ptr, $field[2]),
            $crate::load!($ptr, $field[3]),
        ])
    };
}

/// The cookie of the network namespace of a context's socket.
#[inline(always)]
pub fn netns_cookie<T>(ctx: *mut T) -> u64 {
    // SAFETY: takes any context of the hooks used here, and cannot fail for a socket.
    unsafe { bpf_get_netns_cookie(ctx.cast()) }
}

/// A socket pointer that may be null.
#[inline(always)]
pub fn some(sk: *mut bpf_sock) -> Option<*mut bpf_sock> {
    if sk.is_null() { None } else { Some(sk) }
}

/// The socket of a `sockops` callback.
#[inline(always)]
pub fn ops_sock(ops: *mut bpf_sock_ops) -> Option<*mut bpf_sock> {
    some(load!(ops, __bindgen_anon_2.sk))
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
