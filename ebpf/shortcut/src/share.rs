//! What a pod takes of the maps that all pods share, by its place: none may take what the others need.

use sidestep_ebpf_common::shortcut::MANNERS_SHARE;
use sidestep_ebpf_hook::memory::add;

use crate::maps::{CONFIG, ENDS_OF, ENDS_SWEPT, MANNERS_OF};

/// Whether the pod may have another end. Several CPUs may ask at once, so a few more than the share get through.
#[inline(always)]
pub fn has_room_for_an_end(place: u32) -> bool {
    let (Some(made), Some(swept)) = (ENDS_OF.get(place), ENDS_SWEPT.get(place)) else {
        return false;
    };
    made.wrapping_sub(*swept) < i64::from(CONFIG.ends_share())
}

/// The pod has so many ends more, or less.
#[inline(always)]
pub fn count_ends(place: u32, more: i64) {
    if let Some(ends) = ENDS_OF.get_ptr_mut(place) {
        // SAFETY: a live element of one word.
        unsafe { add(ends, more) };
    }
}

/// Whether it may be learnt of another program or port of the pod whether it blocks.
#[inline(always)]
pub fn has_room_for_manners(place: u32) -> bool {
    MANNERS_OF
        .get(place)
        .is_some_and(|known| *known < MANNERS_SHARE)
}

/// It was learnt of so many more, or less.
#[inline(always)]
pub fn count_manners(place: u32, more: i64) {
    if let Some(known) = MANNERS_OF.get_ptr_mut(place) {
        // SAFETY: a live element of one word.
        unsafe { add(known, more) };
    }
}
