//! Another build of the agent, with other BPF programs that do the same.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{binary, process::copy_program};

/// `r0 = 1` of 64 bits, then `exit`: how a program lets something be.
const ALLOW: [u8; 16] = [0xb7, 0, 0, 0, 1, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
/// `BPF_ALU | BPF_MOV | BPF_K`: the same of 32 bits, which clears the others.
const MOV32: u8 = 0xb4;

/// Makes it in this folder.
pub fn build_with_other_code(folder: &Path) -> PathBuf {
    let mut agent = fs::read(binary("sidestep-agent")).expect("the agent is built");
    let places: Vec<_> = agent
        .windows(ALLOW.len())
        .enumerate()
        .filter_map(|(at, code)| (code == ALLOW).then_some(at))
        .collect();
    assert!(!places.is_empty(), "no program ends like this");
    for at in places {
        agent[at] = MOV32;
    }
    let (draft, path) = (folder.join("draft"), folder.join("sidestep-agent"));
    fs::write(&draft, agent).expect("a folder of ours");
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o755)).expect("a file of ours");
    copy_program(&draft, &path);
    path
}
