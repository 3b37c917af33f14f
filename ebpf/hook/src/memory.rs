//! What lies outside of a hook's context: kernel memory, what is kept with sockets, and the constants that the agent sets.
//!
//! Memory that is reached from a pointer whose type the verifier knows ([`Known`]) is read by plain loads, an instruction each. Any
//! other is read by a helper ([`peek`]), some eighty.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_probe_read_kernel,
    generated::{bpf_get_current_task_btf, bpf_sk_storage_get, bpf_skc_to_tcp_sock},
};

/// A pointer into the kernel whose type the verifier knows. What cannot be read is 0: the kernel catches the fault.
#[derive(Clone, Copy)]
pub struct Known(*const u8);

impl Known {
    /// The `struct tcp_sock` of a TCP socket that is more than a request.
    #[inline(always)]
    pub fn tcp<T>(sk: *mut T) -> Option<Self> {
        // SAFETY: a valid socket, of whatever type the hook has it.
        let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast()) }.cast::<u8>();
        if tcp.is_null() { None } else { Some(Self(tcp)) }
    }

    /// The `struct task_struct` that runs. `bpf_get_current_task_btf`, Linux 5.11.
    #[inline(always)]
    pub fn task() -> Self {
        // SAFETY: takes nothing, and is never null.
        Self(unsafe { bpf_get_current_task_btf() } as *const u8)
    }

    /// A member that is a pointer to a struct; `None` where it is null.
    #[inline(always)]
    pub fn follow(self, offset: u32) -> Option<Self> {
        // SAFETY: as for `word`.
        let pointer = unsafe { self.at::<*const u8>(offset).read_volatile() };
        if pointer.is_null() {
            None
        } else {
            Some(Self(pointer))
        }
    }

    /// A member of four bytes.
    #[inline(always)]
    pub fn word(self, offset: u32) -> u32 {
        // SAFETY: the verifier knows the type of the pointer and the value of the offset, which is the running kernel's.
        unsafe { self.at::<u32>(offset).read_volatile() }
    }

    /// A member of eight bytes, or a pointer to something that is no struct.
    #[inline(always)]
    pub fn long(self, offset: u32) -> u64 {
        // SAFETY: as for `word`.
        unsafe { self.at::<u64>(offset).read_volatile() }
    }

    #[inline(always)]
    fn at<T>(self, offset: u32) -> *const T {
        self.0.wrapping_add(offset as usize).cast()
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

/// The same, unless it is null.
#[inline(always)]
pub fn pointer(base: u64, offset: u32) -> Option<u64> {
    let pointer = peek_long(base, offset)?;
    (pointer != 0).then_some(pointer)
}

/// Two pointers or numbers that stand side by side.
#[inline(always)]
pub fn peek_pair(at: u64) -> Option<(u64, u64)> {
    // SAFETY: as for `peek`.
    let pair = unsafe { bpf_probe_read_kernel(at as *const [u64; 2]) }.ok()?;
    Some((pair[0], pair[1]))
}

/// Adds in one atomic instruction: Rust has no atomic read-modify-write for this target.
///
/// # Safety
///
/// `to` must be valid for writes.
#[inline(always)]
pub unsafe fn add(to: *mut i64, value: i64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: as the caller promises; nothing else is touched.
    unsafe {
        core::arch::asm!("lock *(u64 *)({to} + 0) += {value}", to = in(reg) to, value = in(reg) value);
    }
    // For clippy, which knows only the host.
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as the caller promises.
    unsafe {
        *to += value;
    }
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
