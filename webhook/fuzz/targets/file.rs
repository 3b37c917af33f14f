//! `cargo fuzz run file`

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| sidestep_fuzz::file::check(input));
