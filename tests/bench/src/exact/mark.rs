//! The mark: an instruction that does nothing, anywhere, and that an emulated machine's plugin looks for.

use std::arch::asm;

/// Its bytes in hexadecimal: a no-operation of x86-64 with an operand that nobody else writes.
pub const BYTES: &str = "0f1f8400e957de51";

/// Passes it.
pub fn pass() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a no-operation changes nothing.
    unsafe {
        asm!(
            "nop dword ptr [rax + rax + 0x51de57e9]",
            options(nomem, nostack, preserves_flags)
        );
    }
}
