//! The shortcut's BPF object: its programs, and what is asked of them.

use std::{mem::offset_of, path::Path};

use sidestep_ebpf_common::shortcut::{EndState, Queue, ShortcutSettings};
use sidestep_kernel::object::{Object, ObjectError, Pins};

use super::{Options, ShortcutError, maps, settings};

/// What `build.rs` compiled from `ebpf/shortcut/`.
static OBJECT: &[u8] =
    sidestep_kernel::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sidestep-ebpf-shortcut"));

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
/// The one that reads any word of the kernel's.
const ON_WORD: &str = "on_word";

const PROGRAMS: [&str; 5] = [ON_MESSAGE, ON_CONNECTION, ON_OPTION, ON_PEEK, ON_WORD];

/// Opens the maps, by their pins if there is a folder for them, or makes them. No program is loaded yet.
pub(super) fn open(
    settings: ShortcutSettings,
    folder: Option<&Path>,
) -> Result<Object, ObjectError> {
    let maps = &maps::NAMES;
    let pins = folder.map(|folder| Pins { folder, maps });
    Object::open(OBJECT, ("SETTINGS", &settings), pins)
}

/// Loads every program. Nothing is attached yet.
pub(super) fn load_programs(object: &mut Object) -> Result<(), ObjectError> {
    PROGRAMS.into_iter().try_for_each(|name| object.load(name))
}

/// How many bytes a socket has not read, of which only the address is known. Zero where it is gone.
pub(super) fn unread(object: &Object, sock: u64) -> Result<u32, ObjectError> {
    object.run(ON_PEEK, sock)
}

/// How many bytes the end redirected whose [`EndState`] is at this address. Whatever is there now, if that end is gone.
pub(super) fn redirected(object: &Object, state: u64) -> Result<u64, ObjectError> {
    let word = |member: usize| {
        object.run(
            ON_WORD,
            state + (offset_of!(EndState, queue) + member) as u64,
        )
    };
    let queue = Queue {
        bytes: word(offset_of!(Queue, bytes))?,
        wraps: word(offset_of!(Queue, wraps))?,
        ..Queue::EMPTY
    };
    Ok(queue.total())
}

/// The program that reads a socket's memory, alone and with no map of any other's.
pub(super) struct Peek(Object);

impl Peek {
    pub(super) fn load() -> Result<Self, ShortcutError> {
        let mut object = open(settings::find(Options::default())?, None)?;
        object.load(ON_PEEK)?;
        Ok(Self(object))
    }

    /// As [`unread`].
    pub(super) fn unread(&self, sock: u64) -> Result<u32, ObjectError> {
        unread(&self.0, sock)
    }
}
