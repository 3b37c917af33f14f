//! The shortcut: bytes move from socket to socket inside the kernel, where both ends of a connection are on this node.
//!
//! It is a BPF object and a set of maps of its own. Where it cannot load, or is not proven on the running kernel, it is
//! off, with the reason; interception never depends on it.

mod claims;
mod error;
mod hooks;
pub mod kernel;
mod left;
mod life;
mod maps;
mod members;
mod mptcp;
mod namespaces;
mod object;
pub mod selftest;
mod settings;

use std::{
    collections::HashMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sidestep_ebpf_common::{
    Ids,
    shortcut::{COUNTS, Count, ENDS_SHARE, EndKey, EndState},
};
use sidestep_kernel::{
    hooks::Hooks,
    maps::MapError,
    netns::Cookie,
    object::Object,
    repaired::{Lost, Repaired},
    storage::{self, Storage},
    usage::Usage,
};

use self::{claims::Claims, error::file, hooks::HOOKS, maps::Maps, namespaces::Namespaces};

use crate::rules::addr;
pub use crate::rules::{Allowed, Reach};
pub use error::ShortcutError;
pub use left::{folders, pins, retire};
pub use life::{Bounds, Established, Proof};
#[cfg(feature = "test-switches")]
pub use settings::Switches;
pub use settings::{LIMIT, Options};
pub use sidestep_agent_api::ShortcutStatus;

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
    /// The addresses by which others know it; loopback ones are left out.
    pub addresses: Vec<IpAddr>,
    /// What it allows.
    pub allowed: Allowed,
    /// Its Kubernetes namespace; empty where none is known.
    pub namespace: String,
}

/// What happened since the programs were loaded first, by the names of [`Count`].
pub type Tally = Vec<(Count, u64)>;

/// The programs and maps of one node.
pub struct Shortcut {
    maps: Maps,
    /// Every member's place, and what was written for it; of those that an earlier agent left nothing more is known.
    pods: HashMap<Cookie, (u32, Option<Participant>)>,
    claims: Claims,
    namespaces: Namespaces,
    /// `None` once they are taken away.
    hooks: Option<Hooks>,
    object: Object,
    /// Where maps and links are pinned, if they are.
    pins: Option<PathBuf>,
    readers: Watch,
    /// How many more there are of [`Shortcut::ends`] than the programs counted.
    uncounted_ends: i64,
    ends_swept: Instant,
}

/// Whether it is seen how applications read.
#[derive(Debug)]
enum Watch {
    NotYet,
    Done,
    Impossible(String),
}

/// Where fewer ends are known, those whose end another program kept from ours harm nobody.
const MANY: usize = ENDS_SHARE as usize;
/// Between looks for such.
const SWEEP: Duration = Duration::from_mins(10);

/// How long sockets may take to be sent, and to read, what is on its way, before their maps are kept for them.
pub const DRAIN: Duration = Duration::from_secs(5);

impl Shortcut {
    /// Loads the programs and attaches them to a cgroup. Nothing is pinned: it ends with the value.
    pub fn load(cgroup: &Path, options: Options) -> Result<Self, ShortcutError> {
        Self::load_with(cgroup, options, None)
    }

    /// The same, pinned in a folder; or takes over what an earlier agent left there: the maps with their sockets as they
    /// are, the links with new programs. Where its programs were not attached all the time nobody knows what became of those
    /// sockets: then it is retired, and this is a new beginning.
    pub fn establish(pins: &Path, cgroup: &Path, options: Options) -> Result<Self, ShortcutError> {
        if pins.exists()
            && !(Hooks::are_attached(&HOOKS, pins, cgroup)? && maps::check(pins).is_ok())
        {
            left::set_aside(pins)?;
        }
        fs::create_dir_all(pins).map_err(|error| file(pins, error))?;
        Self::load_with(cgroup, options, Some(pins))
    }

    fn load_with(
        cgroup: &Path,
        options: Options,
        pins: Option<&Path>,
    ) -> Result<Self, ShortcutError> {
        let settings = settings::find(options)?;
        let mut object = object::open(settings, pins)?;
        let mut maps = Maps::take(&mut object)?;
        storage::check(&mut maps.states, EndState::new(0))?;
        let left = maps.members.iter().flatten();
        let pods: HashMap<_, _> = left
            .map(|(cookie, member)| (cookie, (member.place, None)))
            .collect();
        let published = maps.addresses.iter().flatten();
        let claims = Claims::found(published.filter(|(_, owner)| pods.contains_key(owner)));
        let numbers = pods.iter().map(|(cookie, (place, _))| {
            let switch = maps.switches.get(*place)?;
            let own = switch.cookie == *cookie;
            Ok((*cookie, if own { switch.namespace } else { 0 }))
        });
        let namespaces = Namespaces::found(numbers.collect::<Result<Vec<_>, MapError>>()?);
        let mut shortcut = Self {
            maps,
            pods,
            claims,
            namespaces,
            hooks: None,
            object,
            pins: pins.map(Path::to_owned),
            readers: Watch::NotYet,
            uncounted_ends: 0,
            ends_swept: Instant::now(),
        };
        #[cfg(feature = "test-switches")]
        if options.switches.trusting {
            shortcut.readers = Watch::Done;
        }
        object::load_programs(&mut shortcut.object)?;
        let on_message = shortcut.object.program(object::ON_MESSAGE)?;
        shortcut.maps.senders.decide_messages(on_message)?;
        let hooks = Hooks::attach(&shortcut.object, &HOOKS, cgroup, pins)?;
        shortcut.hooks = Some(hooks);
        shortcut.sweep_addresses()?;
        shortcut.sweep_ends()?;
        Ok(shortcut)
    }

    /// Restores links and pins that were lost, and names them. While a link was lost nobody saw what was done to sockets:
    /// connections from before stay with TCP.
    pub fn repair(&mut self) -> Result<Vec<String>, ShortcutError> {
        let (Some(hooks), Some(folder)) = (&mut self.hooks, &self.pins) else {
            return Ok(Vec::new());
        };
        fs::create_dir_all(folder).map_err(|error| file(folder, error))?;
        let mut done = Repaired::default();
        hooks.repair(&self.object, &mut done);
        self.object.repin_maps(&mut done);
        let Repaired {
            restored,
            unseen,
            failed,
        } = done;
        for error in unseen {
            tracing::warn!(%error, "could not check whether the shortcut is attached");
        }
        if let Some(error) = failed.into_iter().next() {
            return Err(error.into());
        }
        if restored.iter().any(|lost| matches!(lost, Lost::Link(_))) {
            self.move_all()?;
            self.sweep_ends()?;
        } else if self.ends() >= MANY && self.ends_swept.elapsed() >= SWEEP {
            self.sweep_ends()?;
        }
        let names = restored.into_iter().map(|lost| match lost {
            Lost::Link(hook) => format!("the shortcut's link of {hook}"),
            Lost::LinkPin(hook) => format!("pin of the shortcut's link {hook}"),
            Lost::MapPin(map) => format!("pin of the shortcut's map {map}"),
        });
        Ok(names.collect())
    }

    /// Turns everything off, at once. Then takes it away, unless a socket has bytes that it has not read: those would be
    /// lost. What is kept takes no new connection, and is taken away by a later agent.
    pub fn remove(&mut self) -> Result<(), ShortcutError> {
        self.end(DRAIN)
    }

    fn end(&mut self, patience: Duration) -> Result<(), ShortcutError> {
        self.keep_only(&[])?;
        let (Some(hooks), Some(folder)) = (self.hooks.take(), self.pins.take()) else {
            return Ok(());
        };
        drop(hooks);
        let peek = |sock| object::unread(&self.object, sock).ok();
        if !left::retire_with(&folder, Instant::now(), patience, &peek)? {
            tracing::warn!(
                "the shortcut is off; its maps stay until nothing is on its way to its sockets and they have read their bytes"
            );
        }
        Ok(())
    }

    /// Makes sure that it is seen how applications read, before anything is put into their sockets. The programs for it
    /// cost something at each read, so they come with the first pod that wants it.
    pub fn watch_readers(&mut self) -> bool {
        if matches!(self.readers, Watch::NotYet) {
            self.readers = match self.object.attach_to_functions(&object::READERS) {
                Ok(()) => Watch::Done,
                Err(error) => {
                    tracing::warn!(%error, "could not watch how applications read; their sockets receive by TCP");
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
        // What cannot be read was not counted, as far as anybody knows.
        let sums = self.maps.tally.sums(0).unwrap_or([0; COUNTS]);
        Count::ALL.into_iter().zip(sums).collect()
    }

    /// How long its programs ran.
    pub fn usage(&self) -> Vec<Usage> {
        self.object.usage()
    }

    /// The map of what it keeps with sockets.
    pub fn kept(&self) -> Option<Storage<'_>> {
        self.object.storage("STATES")
    }

    /// Whether an address is of a pod that takes part; and then, whether it is of this pod's Kubernetes namespace.
    pub fn beside(&self, pod: Cookie, ip: IpAddr) -> Option<bool> {
        let namespace = |pod| {
            let (_, participant) = self.pods.get(&pod)?;
            let namespace = participant.as_ref().map(|of| of.namespace.as_str());
            Some(namespace.filter(|name| !name.is_empty()))
        };
        let owner = self.maps.addresses.get(&addr(ip)).ok()??;
        let (own, other) = (namespace(pod)?, namespace(owner)?);
        Some(own.is_some() && own == other)
    }

    /// How many bytes this end of a connection redirected; none where it is no end any more.
    pub fn redirected_by(&self, end: &EndKey) -> u64 {
        let record = || self.maps.ends.get(end).ok().flatten();
        let Some(before) = record() else { return 0 };
        let bytes = object::redirected(&self.object, before.state).unwrap_or(0);
        // Its memory was its own all the while only if it is an end still.
        if record() == Some(before) { bytes } else { 0 }
    }

    /// How many ends of connections are there now.
    pub fn ends(&self) -> usize {
        usize::try_from(self.counted_ends() + self.uncounted_ends).unwrap_or(0)
    }

    /// The same by the programs' counts, which miss what happened while they were not attached.
    fn counted_ends(&self) -> i64 {
        let mut sums = [0; 2];
        for (what, value) in self.tally() {
            match what {
                Count::Ends => sums[0] = value,
                Count::Closed => sums[1] = value,
                _ => {}
            }
        }
        let [made, closed] = sums;
        made.cast_signed() - closed.cast_signed()
    }

    /// Forgets ends whose sockets were closed while no program looked, and counts those that there are.
    fn sweep_ends(&mut self) -> Result<(), ShortcutError> {
        self.maps.sweep_ends()?;
        let places: Vec<_> = self.pods.values().map(|(place, _)| *place).collect();
        self.maps.recount_ends(&places)?;
        self.ends_swept = Instant::now();
        // Again where connections came or went meanwhile; who never pauses is a few off.
        for _ in 0..3 {
            let before = self.counted_ends();
            let there = self.maps.ends.keys().flatten().count();
            self.uncounted_ends = i64::try_from(there).unwrap_or(i64::MAX) - before;
            if self.counted_ends() == before {
                break;
            }
        }
        Ok(())
    }
}
