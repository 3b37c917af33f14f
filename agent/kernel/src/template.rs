//! A program that is loaded many times, each time with another constant in its instructions.
//!
//! The object is parsed and its maps are put in once; an instance then costs one `BPF_PROG_LOAD`. The library's loader would
//! read the kernel's whole BTF for each.

use std::{
    collections::HashSet,
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

use aya_obj::Object as Parsed;

use crate::{
    object::{Object, ObjectError, PinnedMap},
    sys,
    verifier::last_lines,
};

/// `BPF_LD | BPF_DW | BPF_IMM`: two instructions that load 64 bits.
const LD_IMM64: u8 = 0x18;

/// An `sk_lookup` program, but for the constant.
pub struct Template {
    name: &'static str,
    instructions: Vec<u64>,
    constant_at: usize,
    // Kept: the instructions have the descriptors' numbers.
    _maps: Arc<[PinnedMap]>,
}

impl Template {
    /// Takes a program out of an object, in which `placeholder` is where the constant belongs. It may use pinned maps only.
    pub fn of(object: &Object, name: &'static str, placeholder: u64) -> Result<Self, ObjectError> {
        let wrong = |what: String| ObjectError::Unusable(what);
        let maps = Arc::clone(&object.pinned);
        let mut object = Parsed::parse(object.bytes).map_err(|e| wrong(e.to_string()))?;
        let text: HashSet<usize> = object
            .functions
            .keys()
            .map(|(section, _)| *section)
            .collect();
        let key = object
            .programs
            .get(name)
            .ok_or(ObjectError::NoProgram(name))?
            .function_key();
        object.functions.retain(|other, _| *other == key);
        let definitions = object.maps.clone();
        let known = maps.iter().filter_map(|map| {
            let definition = definitions.get(map.name)?;
            Some((map.name, map.fd.as_raw_fd(), definition))
        });
        object
            .relocate_maps(known, &text)
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
            .filter(|at| load_of(&instructions, *at) == Some(placeholder))
            .collect();
        let [constant_at] = places[..] else {
            return Err(wrong(format!(
                "{name} has {} places for its constant",
                places.len()
            )));
        };
        Ok(Self {
            name,
            instructions,
            constant_at,
            _maps: maps,
        })
    }

    /// Loads the instance with this constant.
    pub fn load(&self, constant: u64) -> Result<OwnedFd, ObjectError> {
        let mut instructions = self.instructions.clone();
        for (i, half) in [constant & 0xffff_ffff, constant >> 32]
            .into_iter()
            .enumerate()
        {
            let instruction = &mut instructions[self.constant_at + i];
            *instruction = *instruction & 0xffff_ffff | half << 32;
        }
        let mut log = Vec::new();
        sys::load_sk_lookup(&instructions, &mut log).map_err(|error| ObjectError::Refused {
            program: self.name,
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
