//! The inbound program: one instance per pod, with its namespace's cookie in the instructions.
//!
//! The object is parsed and its maps are put in once; a pod then costs one `BPF_PROG_LOAD`. The library's loader would
//! read the kernel's whole BTF for every pod.

use std::{
    collections::HashSet,
    os::fd::{OwnedFd, RawFd},
};

use aya_obj::Object;
use sidestep_ebpf_common::COOKIE_PLACE;

use super::{DataplaneError, hooks::INBOUND};
use crate::{netns::Cookie, sys, verifier::last_lines};

/// `BPF_LD | BPF_DW | BPF_IMM`: two instructions that load 64 bits.
const LD_IMM64: u8 = 0x18;

/// The program, but for the cookie.
pub(super) struct Inbound {
    instructions: Vec<u64>,
    cookie_at: usize,
}

impl Inbound {
    /// Takes the program out of the object. The descriptors of the maps must outlive it.
    pub(super) fn prepare(
        object: &[u8],
        maps: &[(&'static str, RawFd)],
    ) -> Result<Self, DataplaneError> {
        let wrong = |what: String| DataplaneError::Object(what);
        let mut object = Object::parse(object).map_err(|e| wrong(e.to_string()))?;
        let text: HashSet<usize> = object
            .functions
            .keys()
            .map(|(section, _)| *section)
            .collect();
        let key = object
            .programs
            .get(INBOUND.program)
            .ok_or(DataplaneError::NotThere(INBOUND.program))?
            .function_key();
        object.functions.retain(|other, _| *other == key);
        let definitions = object.maps.clone();
        let maps = maps
            .iter()
            .filter_map(|(name, fd)| Some((*name, *fd, definitions.get(*name)?)));
        object
            .relocate_maps(maps, &text)
            .map_err(|e| wrong(e.to_string()))?;
        let function = &object.functions[&key];
        let instructions: Vec<u64> = function
            .instructions
            .iter()
            .map(|i| {
                let [off0, off1] = i.off.to_le_bytes();
                let [imm0, imm1, imm2, imm3] = i.imm.to_le_bytes();
                let registers = i.dst_reg() | i.src_reg() << 4;
                u64::from_le_bytes([i.code, registers, off0, off1, imm0, imm1, imm2, imm3])
            })
            .collect();
        let places: Vec<usize> = (0..instructions.len())
            .filter(|at| load_of(&instructions, *at) == Some(COOKIE_PLACE))
            .collect();
        let [cookie_at] = places[..] else {
            return Err(wrong(format!("{} places for the cookie", places.len())));
        };
        Ok(Self {
            instructions,
            cookie_at,
        })
    }

    /// Loads the instance of one pod.
    pub(super) fn load(&self, pod: Cookie) -> Result<OwnedFd, DataplaneError> {
        let mut instructions = self.instructions.clone();
        for (i, half) in [pod & 0xffff_ffff, pod >> 32].into_iter().enumerate() {
            let instruction = &mut instructions[self.cookie_at + i];
            *instruction = *instruction & 0xffff_ffff | half << 32;
        }
        let mut log = Vec::new();
        sys::load_sk_lookup(&instructions, &mut log).map_err(|error| DataplaneError::Program {
            program: INBOUND.name,
            reason: last_lines(&error, &String::from_utf8_lossy(&log)),
        })
    }
}

/// The constant that the instruction pair at `at` loads, if it is one.
fn load_of(instructions: &[u64], at: usize) -> Option<u64> {
    let (first, second) = (*instructions.get(at)?, *instructions.get(at + 1)?);
    let [code, registers, ..] = first.to_le_bytes();
    (code == LD_IMM64 && registers >> 4 == 0).then_some(first >> 32 | second >> 32 << 32)
}
