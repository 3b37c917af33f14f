//! QEMU's plugin interface, version 4 (`include/qemu/qemu-plugin.h` of QEMU 9.2 to 10.0): what is used of it, and no more.
//!
//! QEMU calls plugins on one thread at a time while it emulates one processor, which is how these machines are started.

use std::ffi::{c_int, c_uint, c_void};

/// What this plugin was built for; QEMU refuses another.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 4;

/// `qemu_plugin_id_t`.
pub type Id = u64;

/// `struct qemu_plugin_tb`: instructions that are translated as one.
#[repr(C)]
pub struct RawBlock([u8; 0]);

#[repr(C)]
struct RawInstruction([u8; 0]);

#[repr(C)]
struct RawScoreboard([u8; 0]);

/// `qemu_plugin_u64`: a number that each processor has, in an array that QEMU keeps.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawCounter {
    score: *mut RawScoreboard,
    offset: usize,
}

/// `QEMU_PLUGIN_INLINE_ADD_U64`.
const ADD: c_int = 0;
/// `QEMU_PLUGIN_CB_NO_REGS`.
const NO_REGISTERS: c_int = 0;

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: Id, call: extern "C" fn(Id, *mut RawBlock));
    fn qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
        block: *mut RawBlock,
        operation: c_int,
        counter: RawCounter,
        value: u64,
    );
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut RawInstruction,
        call: extern "C" fn(c_uint, *mut c_void),
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_tb_n_insns(block: *const RawBlock) -> usize;
    fn qemu_plugin_tb_vaddr(block: *const RawBlock) -> u64;
    fn qemu_plugin_tb_get_insn(block: *const RawBlock, at: usize) -> *mut RawInstruction;
    fn qemu_plugin_insn_data(
        instruction: *const RawInstruction,
        to: *mut c_void,
        room: usize,
    ) -> usize;
    fn qemu_plugin_scoreboard_new(size: usize) -> *mut RawScoreboard;
    fn qemu_plugin_u64_sum(counter: RawCounter) -> u64;
}

/// Has every block told as it is translated.
pub fn on_translation(id: Id, call: extern "C" fn(Id, *mut RawBlock)) {
    // SAFETY: `id` is what QEMU gave this plugin; the function lives as long as the plugin, which is never unloaded.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, call) }
}

/// Some of the numbers that QEMU keeps for this plugin.
pub struct Counters(*mut RawScoreboard);

// SAFETY: QEMU's functions for them may be called on any thread.
unsafe impl Send for Counters {}
// SAFETY: as above.
unsafe impl Sync for Counters {}

impl Counters {
    /// So many, all 0. They stay until QEMU ends.
    pub fn new(count: usize) -> Self {
        // SAFETY: a size is all it takes.
        Self(unsafe { qemu_plugin_scoreboard_new(count * size_of::<u64>()) })
    }

    /// The number at this place, which must be one of them.
    pub fn get(&self, at: usize) -> u64 {
        // SAFETY: the scoreboard is never freed.
        unsafe { qemu_plugin_u64_sum(self.at(at)) }
    }

    const fn at(&self, at: usize) -> RawCounter {
        RawCounter {
            score: self.0,
            offset: at * size_of::<u64>(),
        }
    }
}

/// A block while it is translated.
pub struct Block(*mut RawBlock);

impl Block {
    /// Of what QEMU told.
    ///
    /// # Safety
    /// `raw` is what the callback of [`on_translation`] got, and the value does not outlive that call.
    pub const unsafe fn new(raw: *mut RawBlock) -> Self {
        Self(raw)
    }

    /// The address of its first instruction.
    pub fn address(&self) -> u64 {
        // SAFETY: see `new`.
        unsafe { qemu_plugin_tb_vaddr(self.0) }
    }

    /// How many instructions it has.
    pub fn len(&self) -> usize {
        // SAFETY: see `new`.
        unsafe { qemu_plugin_tb_n_insns(self.0) }
    }

    /// Adds its instructions to this number whenever it runs.
    pub fn count(&self, counters: &Counters, at: usize) {
        // SAFETY: see `new`; the number is in the scoreboard.
        unsafe {
            qemu_plugin_register_vcpu_tb_exec_inline_per_vcpu(
                self.0,
                ADD,
                counters.at(at),
                self.len() as u64,
            );
        }
    }

    /// Calls when an instruction of exactly these bytes has its turn.
    pub fn on(&self, bytes: &[u8], call: extern "C" fn(c_uint, *mut c_void)) {
        for at in 0..self.len() {
            let mut buffer = [0; 16];
            // SAFETY: see `new`; `at` is one of its instructions, and QEMU writes no more than there is room for.
            let (instruction, length) = unsafe {
                let instruction = qemu_plugin_tb_get_insn(self.0, at);
                let to = buffer.as_mut_ptr().cast();
                let length = qemu_plugin_insn_data(instruction, to, buffer.len());
                (instruction, length)
            };
            if buffer.get(..length) == Some(bytes) {
                let nothing = std::ptr::null_mut();
                // SAFETY: as above; the function lives as long as the plugin and reads no data.
                unsafe {
                    qemu_plugin_register_vcpu_insn_exec_cb(
                        instruction,
                        call,
                        NO_REGISTERS,
                        nothing,
                    );
                }
            }
        }
    }
}
