//! Where a pod's network namespace is, and what else of the pod can be seen from there.

pub mod discover;
pub mod facts;
pub mod listeners;

use sidestep_kernel::netns::{Namespace, NetnsError};
use std::{fs, net::IpAddr, path::Path};

use crate::pods::wanted::{Place, PodUid, Wanted};

/// A pod's namespace, open for as long as a step takes.
#[derive(Debug)]
pub struct Sandbox {
    /// The namespace.
    pub namespace: Namespace,
    /// The name servers of its processes.
    pub name_servers: Vec<IpAddr>,
    /// The pod's processes, where they are known.
    pub pids: Option<Vec<i32>>,
    /// The addresses that the cluster gave it, where somebody tells. Any other it may have given itself.
    pub given: Option<Vec<IpAddr>>,
}

impl Sandbox {
    /// The processes that may be in it: where the pod's are not known, all of them.
    pub fn processes(&self) -> Vec<i32> {
        let all = || {
            let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
            entries
                .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
                .collect()
        };
        self.pids.clone().unwrap_or_else(all)
    }
}

/// Finds the network namespaces of pods.
pub trait Sandboxes {
    /// A pod's, or nothing while it has none.
    fn find(&self, wanted: &Wanted) -> Result<Option<Sandbox>, NetnsError>;

    /// Whose process this is, if it is a pod's.
    fn owner(&self, pid: u32) -> Owner;
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

impl Sandboxes for Named {
    fn find(&self, wanted: &Wanted) -> Result<Option<Sandbox>, NetnsError> {
        let Place::Named(name) = &wanted.place else {
            return Ok(None);
        };
        Ok(Some(Sandbox {
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
