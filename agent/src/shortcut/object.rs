//! The shortcut's BPF object: parsed, its constants set, its programs loaded.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{Program, RawTracePointRunOptions, TestRun as _},
};
use sidestep_ebpf_common::shortcut::ShortcutSettings;

use super::{Options, ShortcutError, maps, settings};
use crate::verifier::refusal;

/// What `build.rs` compiled from `ebpf/shortcut/`.
static BYTES: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sidestep-ebpf-shortcut"));

/// The `sk_msg` program.
pub(super) const ON_MESSAGE: &str = "on_message";
/// The `sockops` program.
pub(super) const ON_CONNECTION: &str = "on_connection";
/// The `cgroup/setsockopt` program.
pub(super) const ON_OPTION: &str = "on_option";

/// The `sockops` program that asks the kernel about MPTCP; loaded by the self-test alone.
pub(super) const ON_MPTCP: &str = "on_mptcp";

/// The `fentry` programs: each with the function of the kernel's that it is put on.
pub(super) const READERS: [(&str, &str); 2] = [
    ("on_read", "tcp_bpf_recvmsg"),
    ("on_splice", "tcp_splice_read"),
];

/// The program that reads a socket's memory for the agent.
const ON_PEEK: &str = "on_peek";

const PROGRAMS: [&str; 4] = [ON_MESSAGE, ON_CONNECTION, ON_OPTION, ON_PEEK];

/// Opens the maps, by their pins if there is a folder for them, or makes them. No program is loaded yet.
pub(super) fn open(settings: ShortcutSettings, pins: Option<&Path>) -> Result<Ebpf, ShortcutError> {
    let mut loader = EbpfLoader::new();
    // Where the kernel keeps things is in the settings, so its type information need not be read once more.
    loader
        .btf(None)
        .override_global("SETTINGS", &settings, true);
    if let Some(folder) = pins {
        for map in maps::NAMES {
            loader.map_pin_path(map, folder.join(map));
        }
    }
    loader
        .load(BYTES)
        .map_err(|e| ShortcutError::Object(format!("{:#}", anyhow::Error::new(e))))
}

/// Loads every program. Nothing is attached yet.
pub(super) fn load_programs(object: &mut Ebpf) -> Result<(), ShortcutError> {
    PROGRAMS.into_iter().try_for_each(|name| load(object, name))
}

/// Loads one.
pub(super) fn load(object: &mut Ebpf, name: &'static str) -> Result<(), ShortcutError> {
    let program = object.program_mut(name).ok_or_else(|| missing(name))?;
    let answer = match program {
        Program::SkMsg(p) => p.load(),
        Program::SockOps(p) => p.load(),
        Program::CgroupSockopt(p) => p.load(),
        Program::RawTracePoint(p) => p.load(),
        _ => return Err(missing(name)),
    };
    answer.map_err(|e| ShortcutError::Program {
        program: name,
        reason: refusal(e),
    })
}

/// How many bytes a socket has not read, of which only the address is known. Zero where it is gone.
pub(super) fn unread(object: &Ebpf, sock: u64) -> Result<u32, ShortcutError> {
    let Some(Program::RawTracePoint(program)) = object.program(ON_PEEK) else {
        return Err(missing(ON_PEEK));
    };
    let mut args = [0; 12];
    args[0] = sock;
    let options = RawTracePointRunOptions { args, cpu: None };
    let answer = program
        .test_run(options)
        .map_err(|e| ShortcutError::Program {
            program: ON_PEEK,
            reason: refusal(e),
        })?;
    Ok(answer.return_value)
}

/// The program that reads a socket's memory, alone and with no map of any other's.
pub(super) struct Peek(Ebpf);

impl Peek {
    pub(super) fn load() -> Result<Self, ShortcutError> {
        let mut object = open(settings::find(Options::default())?, None)?;
        load(&mut object, ON_PEEK)?;
        Ok(Self(object))
    }

    /// As [`unread`].
    pub(super) fn unread(&self, sock: u64) -> Result<u32, ShortcutError> {
        unread(&self.0, sock)
    }
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
