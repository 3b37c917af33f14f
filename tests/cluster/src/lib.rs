//! A real Kubernetes node with a real Istio, in namespaces of its own, for tests and for users.
//!
//! The whole node is inside a network namespace, a mount namespace and a cgroup that carry the cluster's name (`ss-cluster` unless another is
//! asked for), so nothing of the machine's own network changes and two clusters run side by side. What it keeps on disk is in
//! `.parts/clusters/<name>`.
//!
//! | | |
//! |---|---|
//! | [`place`], [`host`], [`hierarchy`] | folders and addresses; the namespaces; the cgroups |
//! | [`boot`], of [`parts`], [`config`], [`pki`], [`images`] | the node's programs, started in order, and what they are given |
//! | [`istio`], [`sidestep`] | installed as users do |
//! | [`kubectl`], [`wrappers`], [`words`] | the administrator's programs, and what they print made comparable |
//! | [`machine`] | emulated machines as further nodes |
//! | [`room`], of [`objects`] | a namespace for one test: apply, wait, look, run programs in pods |
//! | [`agent`], [`gate`], [`twins`] | what the agent says and keeps; what became of a pod; the same pods with plain Istio beside it |
//!
//! The parts are built by the scripts beside this crate, which `tests/setup.sh cluster` calls.

pub mod agent;
pub mod boot;
pub mod config;
pub mod gate;
pub mod hierarchy;
pub mod host;
pub mod images;
pub mod istio;
pub mod kubectl;
pub mod machine;
pub mod objects;
pub mod parts;
pub mod pki;
pub mod place;
pub mod room;
pub mod sidestep;
pub mod twins;
pub mod words;
pub mod wrappers;

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command},
    time::Duration,
};

use anyhow::{Context, bail, ensure};

use self::{host::Host, kubectl::Kubectl};
pub use self::{host::Life, place::Place};
use sidestep_kit::{
    needs,
    net::{is_stale, unique_name},
    process::eventually,
};

/// What a cluster needs of the machine, for the attribute [`needs`](macro@sidestep_kit::needs).
pub fn programs() -> Result<(), String> {
    needs::root()?;
    let programs = [
        "unshare", "nsenter", "mount", "iptables", "nft", "wrk", "python3", "bpftool",
    ];
    programs.into_iter().try_for_each(needs::program)
}

/// The cluster of `make cluster`.
pub const DEFAULT_NAME: &str = "ss-cluster";

/// A cluster that is up.
#[derive(Debug)]
pub struct Cluster {
    place: Place,
    host: Host,
    kubectl: Kubectl,
    // Set while the cluster belongs to this value.
    children: Option<Vec<Child>>,
}

impl Cluster {
    /// Brings a cluster up and installs Istio; `say` is told of each step. On failure nothing is left but the logs' last lines in the error.
    pub fn up(place: &Place, life: Life, say: &mut dyn FnMut(&str)) -> anyhow::Result<Self> {
        let _lock = lock(place)?;
        if Host::find(place).is_ok() {
            bail!(
                "the cluster {} is up already: see `make cluster-down`",
                place.name()
            );
        }
        clean(place)?;
        let outcome = Self::bring_up(place, life, say);
        if outcome.is_err() {
            let _ = clean(place);
        }
        outcome
    }

    fn bring_up(place: &Place, life: Life, say: &mut dyn FnMut(&str)) -> anyhow::Result<Self> {
        for folder in ["logs", "static-pods"] {
            fs::create_dir_all(place.file(folder))?;
        }
        let host = Host::make(place, life)?;
        let children = boot::boot(place, &host, say)?;
        let kubectl = Kubectl::new(place)?;
        say("Istio");
        istio::install(&kubectl, place).context("Istio did not start")?;
        wrappers::write(place)?;
        Ok(Self {
            place: place.clone(),
            host,
            kubectl,
            children: (life == Life::Tied).then_some(children),
        })
    }

    /// The cluster of this place, which is up; it stays up when the value is dropped.
    pub fn attach(place: &Place) -> anyhow::Result<Self> {
        Ok(Self {
            place: place.clone(),
            host: Host::find(place)?,
            kubectl: Kubectl::new(place)?,
            children: None,
        })
    }

    /// A cluster of this process's own. Those of test processes that were killed are cleared away first.
    pub fn for_tests() -> anyhow::Result<Self> {
        sweep();
        let place = Place::new(&unique_name("cluster"))?;
        Self::up(&place, Life::Tied, &mut |_| {})
    }

    /// Where it keeps what.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The node's namespaces.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its administrator.
    pub fn admin(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Ends it, if it belongs to this value.
    pub fn end(&mut self) {
        if let Some(children) = self.children.take() {
            hierarchy::remove(self.place.name(), &self.place.shared_out());
            for mut child in children {
                let _ = child.wait();
            }
            if let Err(error) = clean(&self.place) {
                eprintln!(
                    "the cluster {} was not removed: {error:#}",
                    self.place.name()
                );
            }
            // Nobody else uses a name that was made for this process.
            let _ = fs::remove_file(lock_file(&self.place));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends a cluster and removes everything of it. Whether there was anything.
pub fn down(place: &Place) -> anyhow::Result<bool> {
    let _lock = lock(place)?;
    let there =
        hierarchy::exists(place.name()) || place.netns().exists() || place.folder().exists();
    clean(place)?;
    Ok(there)
}

/// Removes what is there of a cluster: processes, cgroups, the network namespace, files. Mounts went with the last process.
fn clean(place: &Place) -> anyhow::Result<()> {
    let name = place.name();
    // Another checkout's cluster has its files elsewhere.
    ensure!(
        place.folder().exists() || hierarchy::population(name) == 0,
        "a cluster {name} of another checkout is up: take it down there, or choose another --name"
    );
    hierarchy::remove(name, &place.shared_out());
    ensure!(
        !hierarchy::exists(name),
        "the cgroup {name} cannot be removed: see what is in it with `systemd-cgls` or in cgroup.procs"
    );
    if place.netns().exists() {
        let status = Command::new("ip")
            .args(["netns", "delete", name])
            .status()?;
        ensure!(
            status.success(),
            "the network namespace {name} cannot be deleted"
        );
    }
    match fs::remove_dir_all(place.folder()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| place.folder().display().to_string())
        }
        _ => Ok(()),
    }
}

/// One at a time brings a cluster of this name up or down. Where one was killed, a child of it may have the lock for a moment more.
fn lock(place: &Place) -> anyhow::Result<File> {
    let path = lock_file(place);
    fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
    let file = File::create(path)?;
    let taken = eventually(Duration::from_secs(5), || file.try_lock().is_ok());
    ensure!(
        taken,
        "another process is at work on the cluster {}",
        place.name()
    );
    Ok(file)
}

fn lock_file(place: &Place) -> PathBuf {
    place.folder().with_extension("lock")
}

/// Clears away the clusters of test processes that are no more.
fn sweep() {
    let Ok(parts) = Place::new(DEFAULT_NAME) else {
        return;
    };
    let folders = parts.folder().parent().map(fs::read_dir);
    for entry in folders.into_iter().flatten().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let lock = name.strip_suffix(".lock");
        let Ok(place) = Place::new(lock.unwrap_or(&name)) else {
            continue;
        };
        if is_stale(&name) {
            let _ = clean(&place);
            if lock.is_some() {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}
