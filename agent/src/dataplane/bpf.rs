//! The real dataplane: BPF programs and maps, pinned so that they outlive the agent.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use aya::Ebpf;
use sidestep_ebpf_common::{
    ABI_VERSION, KernelOffsets, LISTENER_SLOTS, ListenerKey, ProxyState, Row,
    sighting::{EVERYBODY, QuietKey},
};

use super::{
    Cookie, Dataplane, DataplaneError,
    hooks::{HOOKS, Hook, INBOUND},
    inbound::Inbound,
    link::{self, Link},
    maps::{self, Maps, error, gone, prefix},
    object,
    sightings::{self, Sightings, clock},
};
use crate::{
    listeners::{Found, Listener},
    preflight,
    rules::Rules,
    shortcut::{Established, ShortcutStatus},
};

/// Programs, maps and links of one node.
pub struct Bpf {
    folder: PathBuf,
    cgroup: File,
    cgroup_path: PathBuf,
    object: Ebpf,
    inbound: Inbound,
    maps: Maps,
    hooks: Vec<Link>,
    pods: HashMap<Cookie, Link>,
    last_rules_id: u32,
    shortcut: Established,
}

impl Bpf {
    /// Whether an earlier agent left anything there.
    pub fn is_pinned(pin: &Path) -> bool {
        version_folder(pin).exists()
    }

    /// Loads the programs and attaches them to the pods' cgroup, or takes over what an earlier agent left pinned under
    /// `pin`: the maps as they are, the links with this agent's programs.
    pub fn establish(
        pin: &Path,
        cgroup: &Path,
        offsets: KernelOffsets,
    ) -> Result<Self, DataplaneError> {
        let folder = version_folder(pin);
        let fresh = !folder.exists();
        let done = Self::load_and_attach(folder.clone(), cgroup, offsets);
        if done.is_err() && fresh {
            // Links and maps end with their pins: nothing of a start that failed may stay.
            let _best_effort = fs::remove_dir_all(&folder);
            let _not_ours_alone = fs::remove_dir(pin);
        }
        done
    }

    fn load_and_attach(
        folder: PathBuf,
        cgroup: &Path,
        offsets: KernelOffsets,
    ) -> Result<Self, DataplaneError> {
        for sub in ["maps", "links", "pods"] {
            let path = folder.join(sub);
            fs::create_dir_all(&path).map_err(|error| pin_error(&path, error))?;
        }
        let mut object = object::load(&folder, offsets)?;
        let maps = Maps::take(&mut object)?;
        let last_rules_id = maps
            .pods
            .iter()
            .flatten()
            .map(|(_, record)| record.rules)
            .max()
            .unwrap_or(0);
        let mut bpf = Self {
            folder,
            cgroup: open_cgroup(cgroup)?,
            cgroup_path: cgroup.to_owned(),
            object,
            inbound: Inbound::prepare(object::BYTES, &maps.descriptors()?)?,
            maps,
            hooks: Vec::new(),
            pods: HashMap::new(),
            last_rules_id,
            shortcut: Established::default(),
        };
        // All of them load before the first is attached.
        for hook in HOOKS {
            object::load_program(&mut bpf.object, hook)?;
        }
        for hook in HOOKS {
            let link = bpf.attach_hook(hook)?;
            bpf.hooks.push(link);
        }
        bpf.adopt()?;
        Ok(bpf)
    }

    /// Takes what was established of the shortcut; from then on armed pods take part.
    pub fn take_shortcut(&mut self, shortcut: Established) {
        self.shortcut = shortcut;
    }

    /// Lets the agent hear of namespaces. The host's own is never told of.
    pub fn sightings(&mut self) -> Result<Sightings, DataplaneError> {
        if let Some(host) = sightings::host_cookie() {
            let everybody = QuietKey {
                cookie: host,
                cgroup: EVERYBODY,
            };
            self.hush(everybody, Duration::MAX);
        }
        if let Err(error) = sightings::watch_execs(&mut self.object) {
            tracing::warn!(%error, "pods are noticed when they use their network, not when they start");
        }
        Sightings::take(&mut self.object)
    }

    fn attach_hook(&self, hook: Hook) -> Result<Link, DataplaneError> {
        let program = object::program(&self.object, hook)?;
        let id = self
            .cgroup
            .metadata()
            .map_err(|error| pin_error(&self.cgroup_path, error))?
            .ino();
        let path = self.folder.join("links").join(hook.name);
        Link::establish(hook, program, self.cgroup.as_fd(), id, path).map_err(|e| match e {
            DataplaneError::Attach { error, .. }
                if error.kind() == io::ErrorKind::PermissionDenied =>
            {
                preflight::exclusive_above(&self.cgroup_path, hook).unwrap_or(
                    DataplaneError::Attach {
                        hook: hook.name,
                        error,
                    },
                )
            }
            other => other,
        })
    }

    /// Opens the inbound links that an earlier agent left.
    fn adopt(&mut self) -> Result<(), DataplaneError> {
        let folder = self.folder.join("pods");
        let armed: HashSet<Cookie> = self.armed()?.into_iter().collect();
        let entries = fs::read_dir(&folder).map_err(|error| pin_error(&folder, error))?;
        for entry in entries.flatten() {
            let cookie: Option<Cookie> = entry.file_name().to_str().and_then(|n| n.parse().ok());
            let cookie = cookie.filter(|cookie| armed.contains(cookie));
            let link = cookie.and_then(|_| Link::open(entry.path()).ok());
            match (cookie, link) {
                (Some(cookie), Some(link)) if link.target().is_some() => {
                    self.pods.insert(cookie, link);
                }
                _ => link::remove_file(&entry.path())?,
            }
        }
        // What a pod had that was being armed when the agent died.
        let states: Vec<_> = self.maps.counts.keys().flatten().collect();
        for cookie in states.into_iter().filter(|cookie| !armed.contains(cookie)) {
            self.disarm(cookie)?;
        }
        // Rules of a policy that was being written when the agent died.
        self.sweep_rules()
    }

    fn remove_listeners(&mut self, pod: Cookie) {
        for slot in 0..LISTENER_SLOTS {
            // Absent is fine; a socket that is closed has left already.
            let _absent = self.maps.listeners.remove(&ListenerKey::new(pod, slot));
        }
    }
}

impl Dataplane for Bpf {
    fn armed(&self) -> Result<Vec<Cookie>, DataplaneError> {
        let keys: Result<Vec<_>, _> = self.maps.pods.keys().collect();
        keys.map_err(|e| error("PODS", &e))
    }

    fn new_rules_id(&mut self) -> u32 {
        self.last_rules_id += 1;
        self.last_rules_id
    }

    fn write_rules(&mut self, rules: &Rules) -> Result<(), DataplaneError> {
        for key in &rules.ports {
            let write = self.maps.ports.insert(&prefix(key), 1, 0);
            write.map_err(|e| error("PORTS", &e))?;
        }
        for key in &rules.addrs {
            let write = self.maps.addrs.insert(&prefix(key), 1, 0);
            write.map_err(|e| error("ADDRS", &e))?;
        }
        for key in &rules.groups {
            let write = self.maps.groups.insert(key, 1, 0);
            write.map_err(|e| error("GROUPS", &e))?;
        }
        Ok(())
    }

    fn delete_rules(&mut self, rules: &Rules) -> Result<(), DataplaneError> {
        for key in &rules.ports {
            gone(self.maps.ports.remove(&prefix(key))).map_err(|e| error("PORTS", &e))?;
        }
        for key in &rules.addrs {
            gone(self.maps.addrs.remove(&prefix(key))).map_err(|e| error("ADDRS", &e))?;
        }
        for key in &rules.groups {
            gone(self.maps.groups.remove(key)).map_err(|e| error("GROUPS", &e))?;
        }
        Ok(())
    }

    fn sweep_rules(&mut self) -> Result<(), DataplaneError> {
        let records = self.maps.pods.iter().flatten();
        let live: Vec<u32> = records.map(|(_, record)| record.rules).collect();
        self.maps.sweep_rules(&live)
    }

    fn open_state(&mut self, pod: Cookie) -> Result<(), DataplaneError> {
        if self.maps.counts.get(&pod, 0).is_err() {
            let zero = maps::zero_counts().map_err(|e| error("COUNTS", &e))?;
            let write = self.maps.counts.insert(pod, zero, 0);
            write.map_err(|e| error("COUNTS", &e))?;
        }
        if self.maps.proxies.get(&pod, 0).is_err() {
            let write = self.maps.proxies.insert(pod, ProxyState::default(), 0);
            write.map_err(|e| error("PROXIES", &e))?;
        }
        Ok(())
    }

    fn attach_inbound(&mut self, pod: Cookie, netns: BorrowedFd<'_>) -> Result<(), DataplaneError> {
        let program = self.inbound.load(pod)?;
        let namespace =
            File::from(
                netns
                    .try_clone_to_owned()
                    .map_err(|error| DataplaneError::Attach {
                        hook: INBOUND.name,
                        error,
                    })?,
            );
        let id = namespace
            .metadata()
            .map_err(|error| pin_error(&self.folder, error))?
            .ino();
        let path = self.folder.join("pods").join(pod.to_string());
        self.pods.remove(&pod);
        let link = Link::establish(INBOUND, program.as_fd(), netns, id, path)?;
        if link.target() != Some(id) {
            return Err(DataplaneError::NotThere("the sk_lookup link"));
        }
        self.pods.insert(pod, link);
        Ok(())
    }

    fn add_listener(&mut self, pod: Cookie, listener: &Listener) -> Result<(), DataplaneError> {
        if !listener.wildcard {
            return Ok(());
        }
        let socket = listener.socket.as_ref().ok_or(DataplaneError::Listener)?;
        maps::put_listener(&mut self.maps.listeners, pod, socket)
    }

    fn commit(&mut self, pod: Cookie, rules: &Rules) -> Result<(), DataplaneError> {
        let write = self.maps.pods.insert(pod, rules.record, 0);
        write.map_err(|e| error("PODS", &e))?;
        self.shortcut.admit(pod, rules);
        Ok(())
    }

    fn note_proxy(&mut self, pod: Cookie, found: &Found) {
        self.shortcut.adopt_proxy(pod, found);
    }

    fn shortcut(&self) -> ShortcutStatus {
        self.shortcut.status()
    }

    fn activate(&mut self, pod: Cookie, spread: bool) -> Result<(), DataplaneError> {
        if self.is_active(pod) {
            return Ok(()); // the programs keep it up to date
        }
        let state = ProxyState {
            active: 1,
            spread: spread.into(),
        };
        let write = self.maps.proxies.insert(pod, state, 0);
        write.map_err(|e| error("PROXIES", &e))
    }

    fn rules_of(&self, pod: Cookie) -> Option<u32> {
        self.maps.pods.get(&pod, 0).ok().map(|record| record.rules)
    }

    fn has_listener(&self, pod: Cookie) -> bool {
        let mut keys = self.maps.listeners.keys().flatten();
        keys.any(|key| key.cookie() == pod)
    }

    fn is_active(&self, pod: Cookie) -> bool {
        let state = self.maps.proxies.get(&pod, 0);
        state.is_ok_and(|state| state.active != 0)
    }

    fn disarm(&mut self, pod: Cookie) -> Result<(), DataplaneError> {
        self.shortcut.dismiss(pod);
        if let Some(link) = self.pods.remove(&pod) {
            link.remove()?;
        }
        gone(self.maps.pods.remove(&pod)).map_err(|e| error("PODS", &e))?;
        gone(self.maps.proxies.remove(&pod)).map_err(|e| error("PROXIES", &e))?;
        gone(self.maps.counts.remove(&pod)).map_err(|e| error("COUNTS", &e))?;
        self.remove_listeners(pod);
        let flows: Vec<_> = self.maps.flows.keys().flatten().collect();
        for flow in flows.iter().filter(|flow| flow.cookie == pod) {
            gone(self.maps.flows.remove(flow)).map_err(|e| error("FLOWS", &e))?;
        }
        Ok(())
    }

    fn is_attached(&self, pod: Cookie) -> bool {
        self.pods
            .get(&pod)
            .is_some_and(|link| link.target().is_some())
    }

    fn counts(&self, pod: Cookie) -> Vec<(Row, u64)> {
        let Ok(per_cpu) = self.maps.counts.get(&pod, 0) else {
            return Vec::new();
        };
        let sum = |row: Row| per_cpu.iter().map(|cpu| cpu.0[row as usize]).sum();
        Row::ALL.iter().map(|row| (*row, sum(*row))).collect()
    }

    fn flows(&self) -> HashMap<Cookie, usize> {
        let mut open = HashMap::new();
        for flow in self.maps.flows.keys().flatten() {
            *open.entry(flow.cookie).or_default() += 1;
        }
        open
    }

    fn repair(&mut self) -> Result<Vec<String>, DataplaneError> {
        let mut restored = Vec::new();
        if self.hooks.iter().any(|link| link.target().is_none()) {
            // Links end with their cgroup; one of the same name may have taken its place.
            self.cgroup = open_cgroup(&self.cgroup_path)?;
        }
        for (index, hook) in HOOKS.into_iter().enumerate() {
            if self.hooks[index].target().is_none() {
                self.hooks[index] = self.attach_hook(hook)?;
                restored.push(format!("link of {}", hook.name));
            } else if self.hooks[index].repin()? {
                restored.push(format!("pin of link {}", hook.name));
            }
        }
        restored.extend(self.maps.repin(&self.folder.join("maps"))?);
        Ok(restored)
    }

    fn repair_pod(&mut self, pod: Cookie) -> Result<Vec<String>, DataplaneError> {
        let restored = match self.pods.get(&pod) {
            Some(link) => link.repin()?,
            None => false,
        };
        let what = || format!("pin of the inbound link of namespace {pod}");
        Ok(restored.then(what).into_iter().collect())
    }

    fn hush(&mut self, who: QuietKey, time: Duration) {
        let until = clock().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        // A hint that cannot be written only means that the agent is told again.
        let _told_again = self.maps.quiet.insert(who, until, 0);
    }

    fn remove(&mut self) -> Result<(), DataplaneError> {
        for pod in self.armed()? {
            self.disarm(pod)?;
        }
        self.shortcut.remove();
        // Writers first: nothing may be captured that the readers could not explain any more.
        for link in self.hooks.drain(..).rev() {
            link.remove()?;
        }
        for map in maps::NAMES {
            link::remove_file(&self.folder.join("maps").join(map))?;
        }
        for path in ["maps", "links", "pods", ""].map(|sub| self.folder.join(sub)) {
            fs::remove_dir(&path).map_err(|error| pin_error(&path, error))?;
        }
        // The folder may hold another version's state; then it stays.
        let _kept = self.folder.parent().map(fs::remove_dir);
        Ok(())
    }
}

/// Two layouts of the maps never share a folder.
fn version_folder(pin: &Path) -> PathBuf {
    pin.join(format!("v{ABI_VERSION}"))
}

fn open_cgroup(path: &Path) -> Result<File, DataplaneError> {
    File::open(path).map_err(|error| pin_error(path, error))
}

fn pin_error(path: &Path, error: io::Error) -> DataplaneError {
    DataplaneError::Pin {
        path: path.to_owned(),
        error,
    }
}
