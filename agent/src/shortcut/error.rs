//! What can go wrong.

use std::{
    io,
    path::{Path, PathBuf},
};

use sidestep_ebpf_common::shortcut::PLACES;
use sidestep_kernel::{
    btf::BtfError, link::LinkError, maps::MapError, object::ObjectError, storage::NoStorage,
};
use thiserror::Error;

/// Why the shortcut cannot be had.
#[derive(Debug, Error)]
pub enum ShortcutError {
    /// No type information.
    #[error("this kernel has no usable BTF ({0}), by which the shortcut finds its way")]
    NoBtf(#[from] BtfError),
    /// Something the programs read has another name or form in this kernel.
    #[error("this kernel's BTF does not tell where {0} is")]
    Unknown(&'static str),
    /// The object, or a program of it.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A program cannot be attached, or what is attached cannot be looked at.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A map operation failed.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Nothing can be kept with sockets.
    #[error(transparent)]
    Storage(#[from] NoStorage),
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
