//! What is kept with a socket, and what is counted.

use sidestep_ebpf_common::shortcut::{Count, EndState};
use sidestep_ebpf_hook::memory::{stored, stored_or_new};

use crate::maps::{STATES, TALLY};

/// What is kept with a socket.
#[inline(always)]
pub fn state<'a, T>(sk: *mut T) -> Option<&'a mut EndState> {
    // SAFETY: the map's type.
    unsafe { stored(&STATES, sk) }
}

/// The same, made (all zero) where it is missing. `None` only where the kernel has no memory.
#[inline(always)]
pub fn state_or_new<'a, T>(sk: *mut T) -> Option<&'a mut EndState> {
    // SAFETY: the map's type.
    unsafe { stored_or_new(&STATES, sk) }
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
