//! What is kept with a socket, and what is counted.

use sidestep_ebpf_common::shortcut::{COUNTS, Count, EndState, PodSwitch};
use sidestep_ebpf_hook::memory::{stored, stored_or_new};

use crate::maps::{STATES, SWITCHES, TALLY};

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

/// What the pod at a place allows now; nothing where there is no such place.
#[inline(always)]
pub fn switch(place: u32) -> PodSwitch {
    SWITCHES.get(place).copied().unwrap_or(PodSwitch::new(0, 0))
}

/// Notes a hazard on an end, for good.
#[inline(always)]
pub fn mark(state: &mut EndState) {
    state.hazard = 1;
    count(Count::Hazards);
}

/// Counts something.
#[inline(always)]
pub fn count(what: Count) {
    if let Some(slot) = tally(what) {
        // SAFETY: a live value of this CPU's own.
        unsafe { *slot += 1 };
    }
}

/// Counts a message of so many bytes.
#[inline(always)]
pub fn count_redirected(bytes: u32) {
    let Some(tally) = TALLY.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a live value of this CPU's own.
    unsafe {
        (*tally)[Count::Redirected as usize] += 1;
        (*tally)[Count::Bytes as usize] += u64::from(bytes);
    }
}

#[inline(always)]
fn tally(what: Count) -> Option<*mut u64> {
    let tally = TALLY.get_ptr_mut(0)?.cast::<u64>();
    let at = what as usize;
    // The verifier sees the bound, not the enumeration.
    (at < COUNTS).then(|| tally.wrapping_add(at))
}
