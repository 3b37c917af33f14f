//! The shortcut: bytes move from socket to socket inside the kernel, where both ends of a connection are on this node.
//!
//! It is a BPF object and a set of maps of its own. Where it cannot load, or is not proven on the running kernel, it is
//! off, with the reason; interception never depends on it.

pub mod kernel;
mod maps;
mod object;
pub mod selftest;
mod settings;

use std::{
    collections::HashMap,
    fs::File,
    io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use sidestep_ebpf_common::{
    Addr, Ids,
    shortcut::{
        Count, EndState, INTO_APPLICATION, IS_PROXY, Member, PLACES, PodSwitch, REACH_NODE,
        REACH_POD,
    },
};
use thiserror::Error;

use aya::maps::IterableMap as _;

use crate::{dataplane::Cookie, sys};
use maps::{Maps, error};

pub use settings::{Mode, Options, Readers};

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

/// How far a pod's bytes may go past TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Nowhere.
    #[default]
    Off,
    /// Between the application and its own sidecar.
    Pod,
    /// Also between this sidecar and others on the node.
    Node,
}

/// What a pod allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// How far.
    pub reach: Reach,
    /// Whether bytes may be put into the application's sockets too.
    pub into_application: bool,
}

impl Allowed {
    const fn flags(self) -> u32 {
        let reach = match self.reach {
            Reach::Off => return 0,
            Reach::Pod => REACH_POD,
            Reach::Node => REACH_POD | REACH_NODE,
        };
        if self.into_application {
            reach | INTO_APPLICATION
        } else {
            reach
        }
    }
}

/// A pod that takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Its network namespace.
    pub cookie: Cookie,
    /// `-p`.
    pub outbound_port: u16,
    /// `-z`.
    pub inbound_port: u16,
    /// `-u`.
    pub uids: Ids,
    /// `-g`.
    pub gids: Ids,
    /// Every address of its interfaces; loopback ones are left out.
    pub addresses: Vec<IpAddr>,
    /// What it allows.
    pub allowed: Allowed,
}

/// What happened since the programs were loaded first, by the names of [`Count`].
pub type Tally = Vec<(Count, u64)>;

/// The programs and maps of one node.
pub struct Shortcut {
    maps: Maps,
    pods: HashMap<Cookie, (u32, Participant)>,
    // Kept: without pins they hold programs and links.
    object: aya::Ebpf,
    _links: Vec<OwnedFd>,
    readers: Watch,
}

/// Whether it is seen how applications read.
#[derive(Debug)]
enum Watch {
    NotYet,
    Done,
    Impossible(String),
}

impl Shortcut {
    /// Loads the programs and attaches them to a cgroup. Nothing is pinned: it ends with the value.
    pub fn load(cgroup: &Path, options: Options) -> Result<Self, ShortcutError> {
        let settings = settings::find(options)?;
        let mut object = object::load(settings)?;
        let maps = Maps::take(&mut object)?;
        let attach = |what, error| ShortcutError::Attach { what, error };
        let on_message = object::program(&object, object::ON_MESSAGE)?;
        sys::map_attach(
            on_message,
            maps.senders.map().fd(),
            sys::AttachType::SkMsgVerdict,
        )
        .map_err(|error| attach("sk_msg", error))?;
        let folder = File::open(cgroup).map_err(|error| ShortcutError::File {
            path: cgroup.to_owned(),
            error,
        })?;
        let mut links = Vec::new();
        for (name, at) in [
            (object::ON_OPTION, sys::AttachType::Setsockopt),
            (object::ON_CONNECTION, sys::AttachType::SockOps),
        ] {
            let program = object::program(&object, name)?;
            let link = sys::link_create(program, folder.as_fd(), at);
            links.push(link.map_err(|error| attach(name, error))?);
        }
        Ok(Self {
            maps,
            pods: HashMap::new(),
            object,
            _links: links,
            readers: match options.readers {
                Readers::Watched => Watch::NotYet,
                Readers::Trusted => Watch::Done,
            },
        })
    }

    /// Lets a pod take part, or changes what it allows.
    pub fn admit(&mut self, pod: &Participant) -> Result<(), ShortcutError> {
        let place = match self.pods.get(&pod.cookie) {
            Some((_, known)) if known == pod => return Ok(()),
            Some((place, _)) => *place,
            None => self.free_place()?,
        };
        self.publish(pod)?;
        // The switch before the member: nothing reads a place that no member has.
        let allowed = Allowed {
            into_application: pod.allowed.into_application && self.watch_readers(),
            ..pod.allowed
        };
        let switch = PodSwitch::new(pod.cookie, allowed.flags());
        let write = self.maps.switches.set(place, switch, 0);
        write.map_err(|e| error("SWITCHES", &e))?;
        let member = Member {
            place,
            outbound_port: pod.outbound_port,
            inbound_port: pod.inbound_port,
            uids: pod.uids,
            gids: pod.gids,
        };
        let write = self.maps.members.insert(pod.cookie, member, 0);
        write.map_err(|e| error("MEMBERS", &e))?;
        self.pods.insert(pod.cookie, (place, pod.clone()));
        Ok(())
    }

    /// Tells who the proxy of a pod is that listened before the pod took part: its process, and its listening sockets
    /// on the capture ports.
    pub fn adopt_proxy(
        &mut self,
        cookie: Cookie,
        process: u32,
        listeners: &[OwnedFd],
    ) -> Result<(), ShortcutError> {
        let Some((place, _)) = self.pods.get(&cookie) else {
            return Ok(());
        };
        let write = self.maps.proxies.set(*place, process, 0);
        write.map_err(|e| error("PROXY_PROCESSES", &e))?;
        for listener in listeners {
            let state = EndState::new(IS_PROXY);
            let write = self.maps.states.insert(listener, state, 0);
            write.map_err(|e| error("STATES", &e))?;
        }
        Ok(())
    }

    /// Turns a pod off, at once and for every connection it has, and takes it out. Its sockets stay where they are until
    /// they are closed: what they have not read yet is not lost.
    pub fn dismiss(&mut self, cookie: Cookie) -> Result<(), ShortcutError> {
        let Some((place, pod)) = self.pods.remove(&cookie) else {
            return Ok(());
        };
        let write = self.maps.switches.set(place, PodSwitch::new(0, 0), 0);
        write.map_err(|e| error("SWITCHES", &e))?;
        let write = self.maps.proxies.set(place, 0, 0);
        write.map_err(|e| error("PROXY_PROCESSES", &e))?;
        maps::gone(self.maps.members.remove(&cookie)).map_err(|e| error("MEMBERS", &e))?;
        for address in published(&pod) {
            let owned = self.maps.addresses.get(&address, 0).ok() == Some(cookie);
            if owned {
                maps::gone(self.maps.addresses.remove(&address))
                    .map_err(|e| error("ADDRESSES", &e))?;
            }
        }
        Ok(())
    }

    /// Makes sure that it is seen how applications read, before anything is put into their sockets. The programs for it
    /// cost something at each read, so they come with the first pod that wants it.
    pub fn watch_readers(&mut self) -> bool {
        if matches!(self.readers, Watch::NotYet) {
            self.readers = match object::watch_readers(&mut self.object) {
                Ok(()) => Watch::Done,
                Err(error) => {
                    tracing::warn!(%error, "nothing is put into applications' sockets");
                    Watch::Impossible(error.to_string())
                }
            };
        }
        matches!(self.readers, Watch::Done)
    }

    /// Why nothing can be put into applications' sockets, where that was tried.
    pub fn cannot_watch(&self) -> Option<&str> {
        match &self.readers {
            Watch::Impossible(why) => Some(why),
            Watch::NotYet | Watch::Done => None,
        }
    }

    /// Everything that was counted.
    pub fn tally(&self) -> Tally {
        let sum = |count: Count| {
            let per_cpu = self.maps.tally.get(&(count as u32), 0);
            per_cpu.map_or(0, |values| values.iter().sum())
        };
        Count::ALL.map(|count| (count, sum(count))).to_vec()
    }

    /// How many ends of connections are there now.
    pub fn ends(&self) -> usize {
        self.maps.ends.keys().flatten().count()
    }

    fn free_place(&self) -> Result<u32, ShortcutError> {
        let taken: Vec<u32> = self.pods.values().map(|(place, _)| *place).collect();
        (1..PLACES)
            .find(|place| !taken.contains(place))
            .ok_or(ShortcutError::Crowded)
    }

    /// An address that another pod has too tells nothing of who is there, so nobody has it.
    fn publish(&mut self, pod: &Participant) -> Result<(), ShortcutError> {
        if let Some((_, before)) = self.pods.get(&pod.cookie) {
            let kept: Vec<Addr> = published(pod).collect();
            for address in published(before).filter(|address| !kept.contains(address)) {
                maps::gone(self.maps.addresses.remove(&address))
                    .map_err(|e| error("ADDRESSES", &e))?;
            }
        }
        for address in published(pod) {
            let others = self.pods.iter().filter(|(cookie, _)| **cookie != pod.cookie);
            let twice = others
                .flat_map(|(_, (_, other))| published(other))
                .any(|other| other == address);
            if twice {
                maps::gone(self.maps.addresses.remove(&address))
                    .map_err(|e| error("ADDRESSES", &e))?;
            } else {
                let write = self.maps.addresses.insert(address, pod.cookie, 0);
                write.map_err(|e| error("ADDRESSES", &e))?;
            }
        }
        Ok(())
    }
}

fn published(pod: &Participant) -> impl Iterator<Item = Addr> {
    let far = pod.addresses.iter().filter(|address| !address.is_loopback());
    far.map(|address| match address {
        IpAddr::V4(v4) => Addr::v4(u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(v6) => {
            let octets = v6.octets();
            let word = |i: usize| {
                u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]])
            };
            Addr([word(0), word(4), word(8), word(12)])
        }
    })
}
