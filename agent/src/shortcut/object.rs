//! The shortcut's BPF object: parsed, its constants set, its programs loaded.

use std::os::fd::{AsFd, BorrowedFd};

use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{Program, ProgramError},
};
use sidestep_ebpf_common::shortcut::ShortcutSettings;

use super::ShortcutError;

/// What `build.rs` compiled from `ebpf/shortcut/`.
static BYTES: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sidestep-ebpf-shortcut"));

/// The `sk_msg` program.
pub(super) const ON_MESSAGE: &str = "on_message";
/// The `sockops` program.
pub(super) const ON_CONNECTION: &str = "on_connection";
/// The `cgroup/setsockopt` program.
pub(super) const ON_OPTION: &str = "on_option";

/// The `fentry` programs: each with the function of the kernel's that it is put on.
pub(super) const READERS: [(&str, &str); 2] = [
    ("on_read", "tcp_bpf_recvmsg"),
    ("on_splice", "tcp_splice_read"),
];

const PROGRAMS: [&str; 3] = [ON_MESSAGE, ON_CONNECTION, ON_OPTION];
/// Lines of the verifier's log that tell what it disliked; it prints thousands.
const LAST_LINES: usize = 12;

/// Loads every program. Nothing is attached yet.
pub(super) fn load(settings: ShortcutSettings) -> Result<Ebpf, ShortcutError> {
    let mut object = EbpfLoader::new()
        .override_global("SETTINGS", &settings, true)
        .load(BYTES)
        .map_err(|e| ShortcutError::Object(format!("{:#}", anyhow::Error::new(e))))?;
    for name in PROGRAMS {
        let program = object.program_mut(name).ok_or_else(|| missing(name))?;
        let answer = match program {
            Program::SkMsg(p) => p.load(),
            Program::SockOps(p) => p.load(),
            Program::CgroupSockopt(p) => p.load(),
            _ => return Err(missing(name)),
        };
        answer.map_err(|e| ShortcutError::Program {
            program: name,
            reason: refusal(e),
        })?;
    }
    Ok(object)
}

/// Loads and attaches what watches how sockets are read. They are attached until the object goes.
pub(super) fn watch_readers(object: &mut Ebpf) -> Result<(), ShortcutError> {
    let btf = Btf::from_sys_fs().map_err(|e| ShortcutError::NoBtf(e.to_string()))?;
    for (name, function) in READERS {
        let Some(Program::FEntry(program)) = object.program_mut(name) else {
            return Err(missing(name));
        };
        let attached = program
            .load(function, &btf)
            .and_then(|()| program.attach().map(drop));
        attached.map_err(|e| ShortcutError::Program {
            program: name,
            reason: refusal(e),
        })?;
    }
    Ok(())
}

/// A loaded program's descriptor.
pub(super) fn program<'a>(
    object: &'a Ebpf,
    name: &'static str,
) -> Result<BorrowedFd<'a>, ShortcutError> {
    object
        .program(name)
        .and_then(|program| program.fd().ok())
        .map(AsFd::as_fd)
        .ok_or_else(|| missing(name))
}

fn missing(name: &'static str) -> ShortcutError {
    ShortcutError::Object(format!("it has no program {name}"))
}

/// What the kernel said, and why.
fn refusal(error: ProgramError) -> String {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let lines: Vec<_> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            format!("{io_error}\n  {}", last.join("\n  "))
        }
        other => format!("{:#}", anyhow::Error::new(other)),
    }
}
