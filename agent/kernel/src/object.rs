//! A BPF object: parsed, its constants set, its maps opened, its programs loaded one by one.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    programs::{
        Program, ProgramError, ProgramType, RawTracePoint, RawTracePointRunOptions, TestRun as _,
    },
};
use thiserror::Error;

use crate::{
    Plain,
    fdinfo::FdInfo,
    link::{LinkError, pin_error, remove_file},
    maps::{MapError, Untyped},
    repaired::{Lost, Repaired},
    storage::Storage,
    sys,
    verifier::refusal,
};

/// Why an object, or a program of it, cannot be had.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// The library, or the kernel, does not take the object or its maps.
    #[error("cannot load the BPF object: {0}")]
    Unusable(String),
    /// The object is another than expected, or the program was not loaded.
    #[error("the BPF object has no program {0} that is loaded and of the kind it must be")]
    NoProgram(&'static str),
    /// The verifier, or the kernel's lack of a feature.
    #[error("the kernel refused program {program}: {reason}")]
    Refused {
        /// Its name.
        program: &'static str,
        /// The verifier's last lines.
        reason: String,
    },
    /// A map's pin.
    #[error(transparent)]
    Pin(#[from] LinkError),
}

/// Where maps are pinned, and which.
#[derive(Clone, Copy, Debug)]
pub struct Pins<'a> {
    /// A folder on a bpffs.
    pub folder: &'a Path,
    /// The maps, by their names in the object, which are also their pins'.
    pub maps: &'static [&'static str],
}

/// An object whose maps are open.
pub struct Object {
    pub(crate) ebpf: Ebpf,
    pub(crate) bytes: &'static [u8],
    pub(crate) pinned: Arc<[PinnedMap]>,
}

/// A map with a pin. Its descriptor keeps it alive where somebody removes the pin.
pub(crate) struct PinnedMap {
    pub(crate) name: &'static str,
    pub(crate) fd: OwnedFd,
    path: PathBuf,
}

impl Object {
    /// Parses an object and sets a constant of it. Maps with a pin are opened by it, or made and pinned there; all others
    /// are made. No program is loaded yet.
    pub fn open<T: Plain>(
        bytes: &'static [u8],
        (constant, value): (&str, &T),
        pins: Option<Pins<'_>>,
    ) -> Result<Self, ObjectError> {
        let all = pins.iter().flat_map(|Pins { folder, maps }| {
            let named = move |name: &'static str| (name, folder.join(name));
            maps.iter().copied().map(named)
        });
        let paths: Vec<_> = all.collect();
        let mut loader = EbpfLoader::new();
        // Programs that are not relocated need none of the kernel's types, which take long to read.
        loader.btf(None).override_global(constant, value, true);
        for (name, path) in &paths {
            loader.map_pin_path(name, path);
        }
        let ebpf = loader
            .load(bytes)
            .map_err(|e| ObjectError::Unusable(format!("{:#}", anyhow::Error::new(e))))?;
        let pinned = paths.into_iter().map(|(name, path)| {
            let fd = sys::obj_get(&path).map_err(|error| pin_error(&path, error))?;
            Ok(PinnedMap { name, fd, path })
        });
        Ok(Self {
            ebpf,
            bytes,
            pinned: pinned.collect::<Result<_, LinkError>>()?,
        })
    }

    /// Takes a map out of it. Each can be taken once.
    pub fn take<T>(&mut self, name: &'static str) -> Result<T, MapError>
    where
        T: TryFrom<Untyped, Error = MapError>,
    {
        let map = self.ebpf.take_map(name);
        let map = map.ok_or_else(|| MapError::new(name, "not in the BPF object"))?;
        T::try_from(Untyped { name, map })
    }

    /// Loads a program into the kernel.
    pub fn load(&mut self, name: &'static str) -> Result<(), ObjectError> {
        let program = self.ebpf.program_mut(name);
        let answer = match program.ok_or(ObjectError::NoProgram(name))? {
            Program::CgroupSock(p) => p.load(),
            Program::CgroupSockAddr(p) => p.load(),
            Program::CgroupSockopt(p) => p.load(),
            Program::SockOps(p) => p.load(),
            Program::SkMsg(p) => p.load(),
            Program::RawTracePoint(p) => p.load(),
            _ => return Err(ObjectError::NoProgram(name)),
        };
        answer.map_err(|error| refused(name, error))
    }

    /// A loaded program.
    pub fn program(&self, name: &'static str) -> Result<BorrowedFd<'_>, ObjectError> {
        let program = self.ebpf.program(name);
        let fd = program.and_then(|program| program.fd().ok());
        fd.map(AsFd::as_fd).ok_or(ObjectError::NoProgram(name))
    }

    /// A pinned map of what is kept with sockets.
    pub fn storage(&self, name: &str) -> Option<Storage<'_>> {
        let map = self.pinned.iter().find(|map| map.name == name)?;
        let id = FdInfo::read(&map.fd).ok()?.number("map_id:")?;
        let fd = map.fd.as_fd();
        Some(Storage { fd, id })
    }

    /// Runs a loaded raw tracepoint's program once, with this argument; its answer.
    pub fn run(&self, name: &'static str, argument: u64) -> Result<u32, ObjectError> {
        let Some(Program::RawTracePoint(program)) = self.ebpf.program(name) else {
            return Err(ObjectError::NoProgram(name));
        };
        let mut args = [0; 12];
        args[0] = argument;
        let answer = program.test_run(RawTracePointRunOptions { args, cpu: None });
        Ok(answer.map_err(|error| refused(name, error))?.return_value)
    }

    /// Loads a program and attaches it to a raw tracepoint of the whole machine, until the object goes.
    pub fn attach_to_tracepoint(
        &mut self,
        name: &'static str,
        tracepoint: &str,
    ) -> Result<(), ObjectError> {
        let program = self.ebpf.program_mut(name);
        let program: &mut RawTracePoint = program
            .and_then(|program| program.try_into().ok())
            .ok_or(ObjectError::NoProgram(name))?;
        let attached = program
            .load()
            .and_then(|()| program.attach(tracepoint).map(drop));
        attached.map_err(|error| refused(name, error))
    }

    /// Loads `fentry` programs and attaches each to its function of the kernel's, until the object goes.
    pub fn attach_to_functions(
        &mut self,
        programs: &[(&'static str, &str)],
    ) -> Result<(), ObjectError> {
        let btf = Btf::from_sys_fs().map_err(|error| ObjectError::Unusable(error.to_string()))?;
        for (name, function) in programs {
            let Some(Program::FEntry(program)) = self.ebpf.program_mut(name) else {
                return Err(ObjectError::NoProgram(name));
            };
            let attached = program
                .load(function, &btf)
                .and_then(|()| program.attach().map(drop));
            attached.map_err(|error| refused(name, error))?;
        }
        Ok(())
    }

    /// Restores pins of maps that somebody removed, as far as it can.
    pub fn repin_maps(&self, done: &mut Repaired) {
        for PinnedMap { name, fd, path } in self.pinned.iter() {
            let repinned = path.try_exists().and_then(|there| {
                if !there {
                    sys::obj_pin(fd, path)?;
                }
                Ok(!there)
            });
            match repinned {
                Ok(true) => done.restored.push(Lost::MapPin(name)),
                Ok(false) => {}
                Err(error) => done.failed.push(pin_error(path, error)),
            }
        }
    }

    /// Removes the pins of its maps. They end when nothing else uses them.
    pub fn unpin_maps(&self) -> Result<(), LinkError> {
        self.pinned
            .iter()
            .try_for_each(|map| remove_file(&map.path))
    }
}

/// Types of programs that a kernel may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramKind {
    /// `cgroup/sock_create` and its like.
    CgroupSock,
    /// `cgroup/connect4` and its like.
    CgroupSockAddr,
    /// `cgroup/getsockopt` and `setsockopt`.
    CgroupSockopt,
    /// `sockops`.
    SockOps,
    /// `sk_lookup`.
    SkLookup,
}

impl ProgramKind {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::CgroupSock,
        Self::CgroupSockAddr,
        Self::CgroupSockopt,
        Self::SockOps,
        Self::SkLookup,
    ];

    /// Whether the kernel says that it does not offer this type. Where it says nothing, loading the program will tell.
    pub fn is_missing(self) -> bool {
        let kind = match self {
            Self::CgroupSock => ProgramType::CgroupSock,
            Self::CgroupSockAddr => ProgramType::CgroupSockAddr,
            Self::CgroupSockopt => ProgramType::CgroupSockopt,
            Self::SockOps => ProgramType::SockOps,
            Self::SkLookup => ProgramType::SkLookup,
        };
        matches!(aya::sys::is_program_supported(kind), Ok(false))
    }
}

fn refused(program: &'static str, error: ProgramError) -> ObjectError {
    ObjectError::Refused {
        program,
        reason: refusal(error),
    }
}
