//! Where a pod's network namespace is, and what else of the pod can be seen from there.

pub mod connections;
mod diag;
pub mod discover;
pub mod facts;
pub mod listeners;
mod users;

use std::{
    fs, io,
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use sidestep_contract::Policy;
use sidestep_kernel::{
    netns::{Cookie, Namespace, NetnsError},
    storage::Storage,
};

pub use self::diag::Ends;
use self::{connections::Sockets, facts::Facts, listeners::Found};
use crate::{
    clock::Now,
    pods::wanted::{Place, PodUid, Wanted},
    rules::Users,
};

/// The node, as far as arming asks it. What is decided and in which order it is done knows nothing else of the machine.
pub trait Node {
    /// How a pod's network namespace is held while a step is taken.
    type Sandbox: Sandbox;

    /// The time.
    fn now(&self) -> Now;

    /// A pod's sandbox, or nothing while it has none.
    fn find(&self, wanted: &Wanted) -> Result<Option<Self::Sandbox>, NetnsError>;

    /// Whose process this is, if it is a pod's.
    fn owner(&self, pid: u32) -> Owner;
}

/// A pod's network namespace, open for as long as a step takes.
pub trait Sandbox {
    /// The namespace's name in the kernel.
    fn cookie(&self) -> Result<Cookie, NetnsError>;

    /// Its descriptor.
    fn netns(&self) -> BorrowedFd<'_>;

    /// Its addresses and name servers, as they are now.
    fn facts(&self) -> Result<Facts, NetnsError>;

    /// Adds `::6` to its `lo`.
    fn raise_passthrough6(&self) -> Result<(), NetnsError>;

    /// The addresses that the cluster gave the pod, where somebody tells. Any other it may have given itself.
    fn given(&self) -> Option<&[IpAddr]>;

    /// Whose ids a policy's are, if the pod has users of its own.
    fn users(&self) -> Result<Option<Users>, NetnsError>;

    /// The proxy's sockets that listen in it.
    fn listeners(&self, policy: &Policy) -> Result<Found, NetnsError>;

    /// Sockets in it that are connected to this port of whichever host; `None` where there are more than `most`.
    fn connected_to(&self, port: u16, most: usize) -> Result<Option<Vec<Ends>>, NetnsError>;

    /// Its TCP sockets that are connected or listen, up to so many, with what is kept with them in these maps.
    fn sockets(&self, kept: &[Storage<'_>], most: usize) -> Result<Sockets, NetnsError>;
}

/// A sandbox of this machine.
#[derive(Debug)]
pub struct PodSandbox {
    /// The namespace.
    pub namespace: Namespace,
    /// The name servers of its processes.
    pub name_servers: Vec<IpAddr>,
    /// The pod's processes, where they are known.
    pub pids: Option<Vec<i32>>,
    /// See [`Sandbox::given`].
    pub given: Option<Vec<IpAddr>>,
}

impl PodSandbox {
    /// The processes that may be in it: where the pod's are not known, all of them.
    fn processes(&self) -> Vec<i32> {
        let all = || {
            let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
            entries
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .collect()
        };
        self.pids.clone().unwrap_or_else(all)
    }

    /// Asks the kernel something of the namespace.
    fn inside<T>(&self, ask: impl FnOnce() -> io::Result<T>) -> Result<T, NetnsError> {
        let answer = self.namespace.enter(ask)?;
        answer.map_err(|error| NetnsError::Io {
            path: self.namespace.path().to_owned(),
            error,
        })
    }
}

impl Sandbox for PodSandbox {
    fn cookie(&self) -> Result<Cookie, NetnsError> {
        self.namespace.cookie()
    }

    fn netns(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    fn facts(&self) -> Result<Facts, NetnsError> {
        facts::read(&self.namespace, self.name_servers.clone())
    }

    fn raise_passthrough6(&self) -> Result<(), NetnsError> {
        facts::raise_passthrough6(&self.namespace)
    }

    fn given(&self) -> Option<&[IpAddr]> {
        self.given.as_deref()
    }

    fn users(&self) -> Result<Option<Users>, NetnsError> {
        users::of(&self.namespace, || self.processes())
    }

    fn listeners(&self, policy: &Policy) -> Result<Found, NetnsError> {
        listeners::find(&self.namespace, || self.processes(), policy)
    }

    fn connected_to(&self, port: u16, most: usize) -> Result<Option<Vec<Ends>>, NetnsError> {
        self.inside(|| diag::connected_to(port, most))
    }

    fn sockets(&self, kept: &[Storage<'_>], most: usize) -> Result<Sockets, NetnsError> {
        self.inside(|| connections::list(kept, most))
    }
}

/// Whose process it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A pod's.
    Pod(PodUid),
    /// Nobody's of interest.
    Other,
    /// It has ended.
    Gone,
}

/// Namespaces with names, as Pod files tell them.
#[derive(Clone, Copy, Debug)]
pub struct Named;

impl Node for Named {
    type Sandbox = PodSandbox;

    fn now(&self) -> Now {
        Now::read()
    }

    fn find(&self, wanted: &Wanted) -> Result<Option<PodSandbox>, NetnsError> {
        let Place::Named(name) = &wanted.place else {
            return Ok(None);
        };
        Ok(Some(PodSandbox {
            namespace: Namespace::open(name)?,
            name_servers: name_servers(name, &wanted.name_servers),
            pids: None,
            given: None,
        }))
    }

    fn owner(&self, _: u32) -> Owner {
        Owner::Other
    }
}

/// The name servers of the pod in a named namespace: `/etc/netns/<name>/resolv.conf` where it exists, as `ip netns exec`
/// shows it to the pod's processes; else the ones its spec names.
fn name_servers(netns: &str, from_spec: &[IpAddr]) -> Vec<IpAddr> {
    let file = Path::new("/etc/netns").join(netns).join("resolv.conf");
    match fs::read_to_string(file) {
        Ok(text) => facts::parse_resolv_conf(&text),
        Err(_) => from_spec.to_vec(),
    }
}
