//! The shortcut: bytes move from socket to socket inside the kernel, where both ends of a connection are on this node.
//!
//! It is a BPF object and a set of maps of its own. Where it cannot load, or is not proven on the running kernel, it is
//! off, with the reason; interception never depends on it.

mod allowed;
pub mod kernel;
mod life;
mod maps;
mod object;
pub mod selftest;
mod settings;

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    net::IpAddr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use sidestep_ebpf_common::{
    Addr, Ids,
    shortcut::{Count, EndRecord, EndState, IS_PROXY, Member, PLACES, PodSwitch},
};
use thiserror::Error;

use aya::maps::IterableMap as _;

use crate::{
    dataplane::{Cookie, Hook, Link, hook, remove_file},
    sys,
};
use maps::{Maps, error};

pub use allowed::{Allowed, Reach};
pub use life::{Bounds, Established, Proof, ShortcutStatus, pins};
pub use settings::{LIMIT, Mode, Options, Readers};

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
    /// Every member's place; of those that an earlier agent left nothing more is known.
    pods: HashMap<Cookie, (u32, Option<Participant>)>,
    pins: Option<Pins>,
    // Kept: without pins they hold programs and links.
    object: aya::Ebpf,
    links: Vec<OwnedFd>,
    readers: Watch,
}

/// What outlives the agent.
struct Pins {
    folder: PathBuf,
    links: Vec<Link>,
}

/// Whether it is seen how applications read.
#[derive(Debug)]
enum Watch {
    NotYet,
    Done,
    Impossible(String),
}

/// Both hooks on the pods' cgroup.
const HOOKS: [Hook; 2] = [
    hook("setsockopt", object::ON_OPTION, sys::AttachType::Setsockopt),
    hook("sock_ops", object::ON_CONNECTION, sys::AttachType::SockOps),
];

/// How long sockets may take to read what they were sent, before their maps are kept for them.
const DRAIN: Duration = Duration::from_secs(2);
const SETTLE: Duration = Duration::from_millis(5);

impl Shortcut {
    /// Loads the programs and attaches them to a cgroup. Nothing is pinned: it ends with the value.
    pub fn load(cgroup: &Path, options: Options) -> Result<Self, ShortcutError> {
        Self::load_with(cgroup, options, None)
    }

    /// The same, pinned in a folder; or takes over what an earlier agent left there: the maps with their sockets as they
    /// are, the links with new programs.
    pub fn establish(pins: &Path, cgroup: &Path, options: Options) -> Result<Self, ShortcutError> {
        fs::create_dir_all(pins).map_err(|error| file(pins, error))?;
        let done = Self::load_with(cgroup, options, Some(pins.to_owned()));
        if done.is_err() {
            // What an earlier agent left stays in force, if there is anything.
            let _not_empty = fs::remove_dir(pins);
        }
        done
    }

    fn load_with(
        cgroup: &Path,
        options: Options,
        pins: Option<PathBuf>,
    ) -> Result<Self, ShortcutError> {
        let mut shortcut = Self::open(options, pins)?;
        object::load_programs(&mut shortcut.object)?;
        let attach = |what, error| ShortcutError::Attach { what, error };
        let on_message = object::program(&shortcut.object, object::ON_MESSAGE)?;
        let senders = shortcut.maps.senders.map().fd();
        sys::map_attach(on_message, senders, sys::AttachType::SkMsgVerdict)
            .map_err(|error| attach("sk_msg", error))?;
        let folder = File::open(cgroup).map_err(|error| file(cgroup, error))?;
        let id = folder
            .metadata()
            .map_err(|error| file(cgroup, error))?
            .ino();
        for (program, hook) in [
            (object::ON_OPTION, HOOKS[0]),
            (object::ON_CONNECTION, HOOKS[1]),
        ] {
            let program = object::program(&shortcut.object, program)?;
            if let Some(pins) = &mut shortcut.pins {
                let path = pins.folder.join(hook.name);
                let link = Link::establish(hook, program, folder.as_fd(), id, path)
                    .map_err(|error| attach(hook.name, io::Error::other(error.to_string())))?;
                pins.links.push(link);
            } else {
                let link = sys::link_create(program, folder.as_fd(), hook.at);
                shortcut
                    .links
                    .push(link.map_err(|error| attach(hook.name, error))?);
            }
        }
        Ok(shortcut)
    }

    /// Opens the maps, with whatever is in them.
    fn open(options: Options, pins: Option<PathBuf>) -> Result<Self, ShortcutError> {
        let settings = settings::find(options)?;
        let mut object = object::open(settings, pins.as_deref())?;
        let maps = Maps::take(&mut object)?;
        let left = maps.members.iter().flatten();
        let pods = left
            .map(|(cookie, member)| (cookie, (member.place, None)))
            .collect();
        Ok(Self {
            maps,
            pods,
            pins: pins.map(|folder| Pins {
                folder,
                links: Vec::new(),
            }),
            object,
            links: Vec::new(),
            readers: match options.readers {
                Readers::Watched => Watch::NotYet,
                Readers::Trusted => Watch::Done,
            },
        })
    }

    /// Turns off whatever an earlier agent left in a folder, and takes it away if nothing of it is in use any more.
    pub fn retire(pins: &Path) -> Result<(), ShortcutError> {
        if !pins.join(maps::NAMES[0]).exists() {
            return Ok(());
        }
        let mut shortcut = Self::open(Options::default(), Some(pins.to_owned()))?;
        object::load_programs(&mut shortcut.object)?;
        shortcut.remove()
    }

    /// Turns everything off, at once. Then takes it away, unless a socket has bytes that it has not read: those would be
    /// lost. What is kept takes no new connection, and the next start takes it over or tries again.
    pub fn remove(&mut self) -> Result<(), ShortcutError> {
        for cookie in self.pods.keys().copied().collect::<Vec<_>>() {
            self.dismiss(cookie)?;
        }
        self.links.clear();
        let Some(pins) = &mut self.pins else {
            return Ok(());
        };
        pins.links.clear();
        let folder = pins.folder.clone();
        let unpin = |name: &str| {
            remove_file(&folder.join(name))
                .map_err(|error| file(&folder, io::Error::other(error.to_string())))
        };
        for hook in HOOKS {
            unpin(hook.name)?;
        }
        if !self.drains() {
            tracing::warn!(
                "sockets have bytes they have not read: the shortcut is off, and its maps stay for them"
            );
            return Ok(());
        }
        for map in maps::NAMES {
            unpin(map)?;
        }
        fs::remove_dir(&folder).map_err(|error| file(&folder, error))
    }

    /// Waits a moment for every end to have read what it was sent.
    fn drains(&self) -> bool {
        let unread = |record: &EndRecord| {
            // In doubt there is something.
            object::unread(&self.object, record.sock).unwrap_or(1) != 0
        };
        // A message that is being redirected just now is there after this.
        let deadline = Instant::now() + DRAIN;
        thread::sleep(SETTLE);
        loop {
            let ends = self.maps.ends.iter().flatten();
            if !ends.into_iter().any(|(_, record)| unread(&record)) {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(SETTLE);
        }
    }

    /// Lets a pod take part, or changes what it allows.
    pub fn admit(&mut self, pod: &Participant) -> Result<(), ShortcutError> {
        let place = match self.pods.get(&pod.cookie) {
            Some((_, Some(known))) if known == pod => return Ok(()),
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
        self.pods.insert(pod.cookie, (place, Some(pod.clone())));
        Ok(())
    }

    /// Tells who the proxy of a pod is that listened before the pod took part: its process, and its listening sockets
    /// on the capture ports.
    pub fn adopt_proxy(
        &mut self,
        cookie: Cookie,
        process: u32,
        listeners: &[&OwnedFd],
    ) -> Result<(), ShortcutError> {
        let Some((place, _)) = self.pods.get(&cookie) else {
            return Ok(());
        };
        let write = self.maps.proxies.set(*place, process, 0);
        write.map_err(|e| error("PROXY_PROCESSES", &e))?;
        for listener in listeners {
            let state = EndState::new(IS_PROXY);
            let write = self.maps.states.insert(*listener, state, 0);
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
        let addresses = self.maps.addresses.iter().flatten();
        let own: Vec<Addr> = addresses
            .filter_map(|(address, owner)| (owner == cookie).then_some(address))
            .collect();
        for address in own {
            maps::gone(self.maps.addresses.remove(&address)).map_err(|e| error("ADDRESSES", &e))?;
        }
        // An address that it claimed too may be another's alone now.
        let claimed: Vec<Addr> = pod.iter().flat_map(published).collect();
        for address in claimed {
            if let Some(owner) = self.only_owner(address) {
                let write = self.maps.addresses.insert(address, owner, 0);
                write.map_err(|e| error("ADDRESSES", &e))?;
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
        if let Some((_, Some(before))) = self.pods.get(&pod.cookie) {
            let kept: Vec<Addr> = published(pod).collect();
            for address in published(before).filter(|address| !kept.contains(address)) {
                maps::gone(self.maps.addresses.remove(&address))
                    .map_err(|e| error("ADDRESSES", &e))?;
            }
        }
        for address in published(pod) {
            let others = self.claimants(address).any(|other| other != pod.cookie);
            if others {
                maps::gone(self.maps.addresses.remove(&address))
                    .map_err(|e| error("ADDRESSES", &e))?;
            } else {
                let write = self.maps.addresses.insert(address, pod.cookie, 0);
                write.map_err(|e| error("ADDRESSES", &e))?;
            }
        }
        Ok(())
    }

    /// The pods that say that an address is theirs.
    fn claimants(&self, address: Addr) -> impl Iterator<Item = Cookie> {
        let known = self
            .pods
            .values()
            .filter_map(|(_, participant)| participant.as_ref());
        known
            .filter(move |pod| published(pod).any(|own| own == address))
            .map(|pod| pod.cookie)
    }

    /// The pod that alone says so.
    fn only_owner(&self, address: Addr) -> Option<Cookie> {
        let mut claimants = self.claimants(address);
        let first = claimants.next()?;
        claimants.next().is_none().then_some(first)
    }
}

fn published(pod: &Participant) -> impl Iterator<Item = Addr> {
    let far = pod
        .addresses
        .iter()
        .filter(|address| !address.is_loopback());
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

fn file(path: &Path, error: io::Error) -> ShortcutError {
    ShortcutError::File {
        path: path.to_owned(),
        error,
    }
}
