//! What can go wrong.

use std::{
    io,
    path::{Path, PathBuf},
};

use sidestep_ebpf_common::shortcut::PLACES;
use thiserror::Error;

use crate::storage::NoStorage;

/// Why the shortcut cannot be had.
#[derive(Debug, Error)]
pub enum ShortcutError {
    /// No type information.
    #[error("this kernel has no usable BTF ({0}), by which the shortcut finds its way")]
    NoBtf(String),
    /// Something the programs read has another name or form in this kernel.
    #[error("this kernel's BTF does not tell where {0} is")]
    Unknown(&'static str),
    /// The verifier, or the kernel's lack of a feature.
    #[error("the kernel refused program {program}: {reason}")]
    Program {
        /// Its name.
        program: &'static str,
        /// The verifier's last lines.
        reason: String,
    },
    /// The object could not be loaded at all.
    #[error("cannot load the shortcut's BPF object: {0}")]
    Object(String),
    /// A program cannot be attached.
    #[error("cannot attach {what}: {error}")]
    Attach {
        /// Which.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A map operation failed.
    #[error("map {map}: {reason}")]
    Map {
        /// Which.
        map: &'static str,
        /// Why.
        reason: String,
    },
    /// Nothing can be kept with sockets.
    #[error(transparent)]
    Storage(NoStorage),
    /// What is pinned was made by something else than this version.
    #[error(
        "map {map} at {path} has keys and values of {found:?} bytes, and this version's of {want:?}"
    )]
    Layout {
        /// Which.
        map: &'static str,
        /// Where it is pinned.
        path: PathBuf,
        /// Sizes of its keys and values, bytes.
        found: (usize, usize),
        /// What they must be.
        want: (usize, usize),
    },
    /// A file.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There are as many pods as places.
    #[error("more than {} pods take part", PLACES - 1)]
    Crowded,
}

pub(super) fn file(path: &Path, error: io::Error) -> ShortcutError {
    ShortcutError::File {
        path: path.to_owned(),
        error,
    }
}
