//! The kernel side, behind a trait: what must be written for a pod. The order is the caller's
//! ([`crate::reconcile::take`]).

mod bpf;
mod flows;
mod hooks;
mod maps;
mod others;
mod pins;
mod sightings;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    os::fd::BorrowedFd,
    path::PathBuf,
    time::Duration,
};

pub use bpf::Bpf;
pub use pins::pinned_pods;
use sidestep_ebpf_common::{FlowKey, Row, shortcut::EndKey, sighting::QuietKey};
use sidestep_kernel::{
    link::LinkError,
    maps::MapError,
    netns::Cookie,
    object::ObjectError,
    repaired::{Lost, Repaired},
    storage::{NoStorage, Storage},
    usage::Usage,
};
pub use sightings::{Missed, Sightings};
use thiserror::Error;

use crate::{
    preflight::PreflightError,
    rules::Rules,
    sandbox::listeners::{Found, Listener},
    shortcut::ShortcutStatus,
};

/// What the kernel refused.
#[derive(Debug, Error)]
pub enum DataplaneError {
    /// The object, or a program of it.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A link, or a file beside it.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The folder of pins is another agent's, or cannot be had.
    #[error(transparent)]
    Pins(#[from] PreflightError),
    /// A map operation failed.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Nothing can be kept with sockets.
    #[error(transparent)]
    Storage(#[from] NoStorage),
    /// Pins went with the file system they were on.
    #[error(
        "{0} is not on a bpffs any more: nothing can be pinned, and with the agent's end every pod's connections would go \
             around its proxy. Leave the agent running, mount a bpffs there again (mount -t bpf bpf /sys/fs/bpf), and it \
             pins everything anew"
    )]
    NoBpffs(PathBuf),
    /// The proxy's socket is there, but the agent cannot have it.
    #[error(
        "the proxy listens already, and its socket cannot be duplicated (pidfd_getfd): does a security policy forbid \
             ptrace (kernel.yama.ptrace_scope 3)? Restart the proxy, or allow it"
    )]
    Listener,
    /// Something written could not be read back.
    #[error("{0} was written but is not there")]
    NotThere(&'static str),
}

/// What was lost: what of it is back, and what stands in the way of the rest. One thing that fails holds up no other.
#[derive(Debug, Default)]
#[must_use]
pub struct Repairs {
    /// What was restored.
    pub restored: Vec<String>,
    /// What could not be read, or not be restored.
    pub errors: Vec<DataplaneError>,
}

impl Repairs {
    /// Everything that went wrong, in one line; nothing where nothing did.
    pub fn failure(&self) -> Option<String> {
        let errors: Vec<String> = self.errors.iter().map(ToString::to_string).collect();
        (!errors.is_empty()).then(|| errors.join("; "))
    }

    /// Adds what became of hooks and maps.
    fn add(&mut self, done: Repaired) {
        let Repaired {
            restored,
            unseen,
            failed,
        } = done;
        self.restored
            .extend(restored.into_iter().map(|lost| match lost {
                Lost::Link(hook) => format!("link of {hook}"),
                Lost::LinkPin(hook) => format!("pin of link {hook}"),
                Lost::MapPin(map) => format!("pin of map {map}"),
            }));
        let errors = unseen.into_iter().chain(failed);
        self.errors.extend(errors.map(DataplaneError::from));
    }

    /// Notes what went wrong.
    pub(crate) fn note(&mut self, done: Result<(), DataplaneError>) {
        self.errors.extend(done.err());
    }
}

/// How much there is room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Armed namespaces.
    pub pods: usize,
    /// Captured connections that are open.
    pub flows: usize,
}

/// One domain verb per thing that is written. Every verb may be repeated. What cannot be read is an error, never "no".
pub trait Dataplane {
    /// Pods that are armed now.
    fn armed(&self) -> Result<Vec<Cookie>, DataplaneError>;
    /// A number for new rules: the same until it is written, and never that of rules which were written to these maps.
    fn new_rules_id(&mut self) -> u32;
    /// Writes the sets. They have no effect before [`Self::commit`].
    fn write_rules(&mut self, rules: &Rules) -> Result<(), DataplaneError>;
    /// Deletes the sets. Never those of an armed pod.
    fn delete_rules(&mut self, rules: &Rules) -> Result<(), DataplaneError>;
    /// Deletes the sets of no armed pod, whoever wrote them.
    fn sweep_rules(&mut self) -> Result<(), DataplaneError>;
    /// Gives the pod its counters and its proxy's state, or keeps those it has.
    fn open_state(&mut self, pod: Cookie) -> Result<(), DataplaneError>;
    /// Attaches inbound capture to the pod's namespace, and reads the link back.
    fn attach_inbound(&mut self, pod: Cookie, netns: BorrowedFd<'_>) -> Result<(), DataplaneError>;
    /// Lets inbound capture hand connections to this socket.
    fn add_listener(&mut self, pod: Cookie, listener: &Listener) -> Result<(), DataplaneError>;
    /// Arms the pod: one write, and the last.
    fn commit(&mut self, pod: Cookie, rules: &Rules) -> Result<(), DataplaneError>;
    /// Tells the shortcut whose the proxy's listening sockets are. Best effort: without it their connections go by TCP.
    fn note_proxy(&mut self, _pod: Cookie, _found: &Found) {}
    /// What is to be told of the shortcut.
    fn shortcut(&self) -> ShortcutStatus {
        ShortcutStatus::default()
    }
    /// Turns interception on: its proxy listens already, with `spread` on every address on its outbound port.
    fn activate(&mut self, pod: Cookie, spread: bool) -> Result<(), DataplaneError>;
    /// The number of the rules that the pod's record points to.
    fn rules_of(&self, pod: Cookie) -> Result<Option<u32>, DataplaneError>;
    /// Whether inbound capture has a socket to hand connections to.
    fn has_listener(&self, pod: Cookie) -> bool;
    /// Whether interception is on.
    fn is_active(&self, pod: Cookie) -> Result<bool, DataplaneError>;
    /// Takes a pod out: inbound capture first, then the record. Its connections stay remembered until [`Self::forget_all`].
    fn disarm(&mut self, pod: Cookie) -> Result<(), DataplaneError>;
    /// Which other version of Sidestep captures this namespace, if one does: it is that version's until it ends.
    fn keeper(&self, _pod: Cookie) -> Option<String> {
        None
    }
    /// How many namespaces each version captures, by the name of its maps' layout.
    fn layouts(&self) -> BTreeMap<String, usize> {
        BTreeMap::new()
    }
    /// Whether inbound capture is still attached.
    fn is_attached(&self, pod: Cookie) -> Result<bool, DataplaneError>;
    /// What each row decided for this pod.
    fn counts(&self, pod: Cookie) -> Vec<(Row, u64)>;
    /// How many captured connections are open, by pod.
    fn flows(&self) -> HashMap<Cookie, usize>;
    /// How many captured connections the programs count as open, by pod.
    fn open(&self) -> Result<HashMap<Cookie, i64>, DataplaneError> {
        Ok(HashMap::new())
    }
    /// The captured connections that are remembered of these pods.
    fn remembered(&self, _pods: &HashSet<Cookie>) -> HashMap<Cookie, HashSet<FlowKey>> {
        HashMap::new()
    }
    /// Forgets connections of a pod whose end the programs did not see, and corrects their count by what was `miscounted`.
    fn forget(
        &mut self,
        _pod: Cookie,
        _ended: &HashSet<FlowKey>,
        _miscounted: i64,
    ) -> Result<(), DataplaneError> {
        Ok(())
    }
    /// Forgets every connection of these pods, which are not armed any more.
    fn forget_all(&mut self, _pods: &HashSet<Cookie>) -> Result<(), DataplaneError> {
        Ok(())
    }
    /// How much its maps can hold.
    fn capacity(&self) -> Capacity {
        Capacity::default()
    }
    /// The maps of what is kept with sockets.
    fn kept(&self) -> Vec<Storage<'_>> {
        Vec::new()
    }
    /// Whether an address is of a pod that takes part in the shortcut; and then, whether it is of this pod's Kubernetes namespace.
    fn beside(&self, _pod: Cookie, _ip: IpAddr) -> Option<bool> {
        None
    }
    /// How many bytes this end of a connection redirected.
    fn redirected_by(&self, _end: &EndKey) -> u64 {
        0
    }
    /// How long its programs ran.
    fn usage(&self) -> Vec<Usage> {
        Vec::new()
    }
    /// Looks after links, pins and maps.
    fn repair(&mut self) -> Repairs;
    /// Lets programs be silent about a namespace for a while.
    fn mute(&mut self, who: QuietKey, time: Duration);
    /// Takes everything out of the kernel.
    fn remove(&mut self) -> Result<(), DataplaneError>;
}
