//! What lies outside of a hook's context: kernel memory, what is kept with sockets, and the constants that the agent sets.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated::bpf_sk_storage_get};

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

/// The same, unless it is null.
#[inline(always)]
pub fn pointer(base: u64, offset: u32) -> Option<u64> {
    let pointer = peek_long(base, offset)?;
    (pointer != 0).then_some(pointer)
}

/// What is read after this is read after all that was read before it. arm64 may read in another order otherwise.
///
/// Linux makes an atomic operation that returns a value a full barrier. BPF's own instructions for this came with 6.15.
#[inline(always)]
pub fn in_order() {
    #[cfg(target_arch = "bpf")]
    {
        let mut nothing = 0u64;
        // SAFETY: it adds 0 to a word of the stack.
        unsafe {
            core::arch::asm!(
                "{old} = atomic_fetch_add((u64 *)({to} + 0), {old})",
                to = in(reg) &raw mut nothing,
                old = inout(reg) 0u64 => _,
            );
        }
    }
}

/// What is kept with a socket, or with the hook's context that stands for it. `None` where nothing is.
///
/// # Safety
///
/// `map` must be a map of socket storage whose values are of type `S`, zeroes among them.
#[inline(always)]
pub unsafe fn stored<'a, S, M, T>(map: &'static M, sk: *mut T) -> Option<&'a mut S> {
    // SAFETY: as the caller promises.
    unsafe { storage(map, sk, 0) }
}

/// The same, made (all zero) where it is missing. `None` only where the kernel has no memory.
///
/// # Safety
///
/// As for [`stored`].
#[inline(always)]
pub unsafe fn stored_or_new<'a, S, M, T>(map: &'static M, sk: *mut T) -> Option<&'a mut S> {
    const CREATE: u64 = 1;
    // SAFETY: as the caller promises.
    unsafe { storage(map, sk, CREATE) }
}

#[inline(always)]
unsafe fn storage<'a, S, M, T>(map: &'static M, sk: *mut T, flags: u64) -> Option<&'a mut S> {
    let map = (&raw const *map).cast_mut().cast::<c_void>();
    // SAFETY: the helper returns null or the value, which lives as long as the socket, and that outlives the hook. Two
    // CPUs may write it at once; each field is a word of its own, and what belongs together is written under the
    // socket's lock.
    unsafe {
        bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags)
            .cast::<S>()
            .as_mut()
    }
}

/// Methods that read fields of a static which the agent sets before it loads a program.
#[macro_export]
macro_rules! constants {
    ($constants:ident: $($field:ident,)+) => { $(
        /// The field of this name.
        #[inline(always)]
        pub fn $field(&self) -> u32 {
            // SAFETY: the static is initialised and never written while the program runs. Volatile, because the
            // compiler would otherwise take the zeroes it begins with for the values.
            unsafe { core::ptr::read_volatile(&raw const $constants.$field) }
        }
    )+ };
}
