//! The BPF object: parsed, its maps opened by their pins, its programs loaded one by one.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use aya::{Ebpf, EbpfLoader, programs::Program};

use sidestep_ebpf_common::KernelOffsets;

use super::{DataplaneError, maps};
use crate::{link::Hook, verifier::refusal};

/// What `build.rs` compiled from `ebpf/`.
pub(super) static BYTES: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sidestep-ebpf"));

/// Parses the object; opens the pinned maps, or makes and pins them. No program is loaded yet.
pub(super) fn load(folder: &Path, offsets: KernelOffsets) -> Result<Ebpf, DataplaneError> {
    let mut loader = EbpfLoader::new();
    loader
        .btf(None)
        .override_global("KERNEL_OFFSETS", &offsets, true);
    for map in maps::NAMES {
        loader.map_pin_path(map, folder.join("maps").join(map));
    }
    loader
        .load(BYTES)
        .map_err(|e| DataplaneError::Object(format!("{:#}", anyhow::Error::new(e))))
}

/// Loads one program into the kernel.
pub(super) fn load_program(object: &mut Ebpf, hook: Hook) -> Result<(), DataplaneError> {
    let program = object
        .program_mut(hook.program)
        .ok_or(DataplaneError::NotThere(hook.program))?;
    let answer = match program {
        Program::CgroupSock(p) => p.load(),
        Program::CgroupSockAddr(p) => p.load(),
        Program::CgroupSockopt(p) => p.load(),
        Program::SockOps(p) => p.load(),
        Program::SkLookup(p) => p.load(),
        _ => return Err(DataplaneError::NotThere(hook.program)),
    };
    answer.map_err(|e| DataplaneError::Program {
        program: hook.name,
        reason: refusal(e),
    })
}

/// A loaded program's descriptor.
pub(super) fn program(object: &Ebpf, hook: Hook) -> Result<BorrowedFd<'_>, DataplaneError> {
    object
        .program(hook.program)
        .and_then(|program| program.fd().ok())
        .map(AsFd::as_fd)
        .ok_or(DataplaneError::NotThere(hook.program))
}
