//! What is kept with sockets, and whether the kernel can keep anything with one. Since Linux 7.1 it allocates that by `kmalloc_nolock`, which has
//! nothing to give on a processor without cmpxchg16b: every hook would then find nothing that an earlier one noted.

use std::{fs, os::fd::BorrowedFd, ptr};

use rustix::net::{AddressFamily, SocketType, socket};
use thiserror::Error;

use crate::{Plain, maps::SocketStorage};

/// It cannot.
#[derive(Debug, Error)]
#[error("the kernel cannot allocate socket storage: {reason}{}", if *old_processor { OLD_PROCESSOR } else { "" })]
pub struct NoStorage {
    reason: String,
    old_processor: bool,
}

impl NoStorage {
    /// Whether it is for the processor's sake, and no waiting helps.
    pub const fn is_for_good(&self) -> bool {
        self.old_processor
    }
}

/// A map of what is kept with sockets, for who lists sockets and wants to be told that, too
/// (`INET_DIAG_REQ_SK_BPF_STORAGES`).
#[derive(Clone, Copy, Debug)]
pub struct Storage<'a> {
    /// How it is named in the question.
    pub fd: BorrowedFd<'a>,
    /// How it is named in the answer.
    pub id: u32,
}

/// A value, from the bytes that the kernel tells of it; `None` where they are too few or too many.
pub fn value<V: Plain>(bytes: &[u8]) -> Option<V> {
    // SAFETY: as many bytes as the value has, and a plain type is any of them.
    (bytes.len() == size_of::<V>()).then(|| unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
}

const OLD_PROCESSOR: &str =
    "; since Linux 7.1 that takes a processor with cmpxchg16b (cx16), and this one has none";

/// One allocation may fail without shortage: the kernel only tries the locks that it needs.
const TRIES: u32 = 16;

/// Keeps a value with a socket made for that, which goes at once.
pub fn check<V: Plain>(map: &mut SocketStorage<V>, value: V) -> Result<(), NoStorage> {
    let fail = |reason: String| NoStorage {
        reason,
        old_processor: lacks_cmpxchg16b(),
    };
    let mut last = String::new();
    for _ in 0..TRIES {
        let scratch = socket(AddressFamily::INET, SocketType::STREAM, None)
            .map_err(|e| fail(e.to_string()))?;
        match map.insert(&scratch, value) {
            Ok(()) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(fail(last))
}

fn lacks_cmpxchg16b() -> bool {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo");
    cfg!(target_arch = "x86_64") && cpuinfo.is_ok_and(|text| !has_cmpxchg16b(&text))
}

/// By the first processor's flags. Where there are none nothing is said against it.
fn has_cmpxchg16b(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_none_or(|line| line.split_whitespace().any(|flag| flag == "cx16"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_without_cmpxchg16b_is_named_as_the_reason() {
        let error = |old_processor| {
            let reason = std::io::Error::from_raw_os_error(libc::ENOMEM).to_string();
            let error = NoStorage {
                reason,
                old_processor,
            };
            error.to_string()
        };
        assert_eq!(
            error(true),
            "the kernel cannot allocate socket storage: Cannot allocate memory (os error 12); since Linux 7.1 that takes a \
             processor with cmpxchg16b (cx16), and this one has none"
        );
        assert_eq!(
            error(false),
            "the kernel cannot allocate socket storage: Cannot allocate memory (os error 12)"
        );
    }

    #[test]
    fn a_value_takes_as_many_bytes_as_it_has() {
        let bytes: Vec<u8> = (1..=9).collect();
        assert_eq!(
            value::<u64>(&bytes[..8]),
            Some(u64::from_ne_bytes([1, 2, 3, 4, 5, 6, 7, 8]))
        );
        assert_eq!(
            value::<u32>(&bytes[1..5]),
            Some(u32::from_ne_bytes([2, 3, 4, 5]))
        );
        assert_eq!(value::<u64>(&bytes), None);
        assert_eq!(value::<u64>(&bytes[..7]), None);
    }

    #[test]
    fn the_flag_is_found_among_the_others() {
        let with = "processor\t: 0\nflags\t\t: fpu cx8 sse3 cx16 sse4_1\n";
        let without = "processor\t: 0\nflags\t\t: fpu cx8 sse3 sse4_1\n";
        assert!(has_cmpxchg16b(with));
        assert!(!has_cmpxchg16b(without));
        assert!(has_cmpxchg16b(""));
    }
}
