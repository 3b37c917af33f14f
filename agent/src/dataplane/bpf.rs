//! The real dataplane: BPF programs and maps, pinned so that they outlive the agent.

mod establish;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::PathBuf,
    time::Duration,
};

use aya::Ebpf;
use sidestep_ebpf_common::{
    FlowKey, LISTENER_SLOTS, ListenerKey, ProxyState, Row,
    sighting::{EVERYBODY, QuietKey},
};

use super::{
    Dataplane, DataplaneError, Repairs,
    hooks::{HOOKS, INBOUND},
    inbound::Inbound,
    maps::{self, Maps, error, gone, prefix, present},
    pins, sightings,
};
use crate::{
    clock::monotonic,
    link::{self, Hook, Link, LinkError, pin_error},
    listeners::{Found, Listener},
    netns::Cookie,
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
    fn pod_pin(&self, pod: Cookie) -> PathBuf {
        self.folder.join("pods").join(pod.to_string())
    }

    fn remove_listeners(&mut self, pod: Cookie) {
        for slot in 0..LISTENER_SLOTS {
            // Absent is fine; a socket that is closed has left already.
            let _absent = self.maps.listeners.remove(&ListenerKey::new(pod, slot));
        }
    }

    /// Attaches a hook's link again, or pins it again; what was done.
    fn repair_hook(&mut self, index: usize, hook: Hook) -> Result<Option<String>, DataplaneError> {
        if self.hooks[index].target()?.is_none() {
            // Links end with their cgroup; one of the same name may have taken its place.
            self.cgroup = establish::open_cgroup(&self.cgroup_path)?;
            self.hooks[index] = self.attach_hook(hook)?;
            return Ok(Some(format!("link of {}", hook.name)));
        }
        let repinned = self.hooks[index].repin()?;
        Ok(repinned.then(|| format!("pin of link {}", hook.name)))
    }

    /// One look at the folder finds what is missing of hundreds of pods.
    fn repin_pods(&self, done: &mut Repairs) {
        let there: HashSet<PathBuf> = match pins::entries(&self.folder.join("pods")) {
            Ok(pinned) => pinned.into_iter().collect(),
            Err(error) => return done.errors.push(error.into()),
        };
        for (pod, link) in &self.pods {
            if there.contains(link.path()) {
                continue;
            }
            match link.repin() {
                Ok(true) => done
                    .restored
                    .push(format!("pin of the inbound link of namespace {pod}")),
                Ok(false) => {}
                Err(error) => done.errors.push(error.into()),
            }
        }
    }
}

impl Dataplane for Bpf {
    fn armed(&self) -> Result<Vec<Cookie>, DataplaneError> {
        let keys: Result<Vec<_>, _> = self.maps.pods.keys().collect();
        keys.map_err(|e| error("PODS", &e))
    }

    fn new_rules_id(&mut self) -> u32 {
        self.last_rules_id + 1
    }

    fn write_rules(&mut self, rules: &Rules) -> Result<(), DataplaneError> {
        self.last_rules_id = self.last_rules_id.max(rules.record.rules);
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
        let records = self.maps.pods.iter();
        let live: Result<Vec<u32>, _> =
            records.map(|r| r.map(|(_, record)| record.rules)).collect();
        self.maps.sweep_rules(&live.map_err(|e| error("PODS", &e))?)
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
        if self.maps.open.get(&pod, 0).is_err() {
            let write = self.maps.open.insert(pod, 0, 0);
            write.map_err(|e| error("OPEN", &e))?;
        }
        Ok(())
    }

    fn attach_inbound(&mut self, pod: Cookie, netns: BorrowedFd<'_>) -> Result<(), DataplaneError> {
        let program = self.inbound.load(pod)?;
        let namespace =
            File::from(
                netns
                    .try_clone_to_owned()
                    .map_err(|error| LinkError::Attach {
                        hook: INBOUND.name,
                        error,
                    })?,
            );
        let id = namespace
            .metadata()
            .map_err(|error| pin_error(&self.folder, error))?
            .ino();
        let path = self.pod_pin(pod);
        if let Some(link) = self.pods.get(&pod) {
            link.repin()?; // it is taken over by its pin
        }
        let link = Link::establish(INBOUND, program.as_fd(), netns, id, path)?;
        let target = link.target();
        // Whatever it is attached to: disarming takes it away.
        self.pods.insert(pod, link);
        if target? != Some(id) {
            return Err(DataplaneError::NotThere("the sk_lookup link"));
        }
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
        if self.is_active(pod)? {
            return Ok(()); // the programs keep it up to date
        }
        let state = ProxyState {
            active: 1,
            spread: spread.into(),
        };
        let write = self.maps.proxies.insert(pod, state, 0);
        write.map_err(|e| error("PROXIES", &e))
    }

    fn rules_of(&self, pod: Cookie) -> Result<Option<u32>, DataplaneError> {
        let record = present(self.maps.pods.get(&pod, 0)).map_err(|e| error("PODS", &e))?;
        Ok(record.map(|record| record.rules))
    }

    fn has_listener(&self, pod: Cookie) -> bool {
        let mut keys = self.maps.listeners.keys().flatten();
        keys.any(|key| key.cookie() == pod)
    }

    fn is_active(&self, pod: Cookie) -> Result<bool, DataplaneError> {
        let state = present(self.maps.proxies.get(&pod, 0)).map_err(|e| error("PROXIES", &e))?;
        Ok(state.is_some_and(|state| state.active != 0))
    }

    fn disarm(&mut self, pod: Cookie) -> Result<(), DataplaneError> {
        self.shortcut.dismiss(pod);
        // Also a pin that could not be removed the last time.
        self.pods.remove(&pod);
        link::remove_file(&self.pod_pin(pod))?;
        gone(self.maps.pods.remove(&pod)).map_err(|e| error("PODS", &e))?;
        gone(self.maps.proxies.remove(&pod)).map_err(|e| error("PROXIES", &e))?;
        gone(self.maps.open.remove(&pod)).map_err(|e| error("OPEN", &e))?;
        gone(self.maps.counts.remove(&pod)).map_err(|e| error("COUNTS", &e))?;
        self.remove_listeners(pod);
        Ok(())
    }

    fn is_attached(&self, pod: Cookie) -> Result<bool, DataplaneError> {
        match self.pods.get(&pod) {
            Some(link) => Ok(link.target()?.is_some()),
            None => Ok(false),
        }
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

    fn open(&self) -> Result<HashMap<Cookie, i64>, DataplaneError> {
        self.maps.open()
    }

    fn remembered(&self, pods: &HashSet<Cookie>) -> HashMap<Cookie, HashSet<FlowKey>> {
        self.maps.remembered(|pod| pods.contains(&pod))
    }

    fn forget(
        &mut self,
        pod: Cookie,
        ended: &HashSet<FlowKey>,
        miscounted: i64,
    ) -> Result<(), DataplaneError> {
        self.maps.forget(pod, ended, miscounted)
    }

    fn forget_all(&mut self, pods: &HashSet<Cookie>) -> Result<(), DataplaneError> {
        self.maps.forget_all(|pod| pods.contains(&pod))
    }

    fn repair(&mut self) -> Repairs {
        let mut done = Repairs {
            // It has hooks of its own, whatever becomes of the others.
            restored: self.shortcut.repair(),
            ..Repairs::default()
        };
        if !preflight::is_on_bpffs(&self.folder) {
            done.errors
                .push(DataplaneError::NoBpffs(self.folder.clone()));
            return done;
        }
        if let Err(error) = establish::make_folders(&self.folder) {
            done.errors.push(error.into());
        }
        for (index, hook) in HOOKS.into_iter().enumerate() {
            match self.repair_hook(index, hook) {
                Ok(restored) => done.restored.extend(restored),
                Err(error) => done.errors.push(error),
            }
        }
        self.repin_pods(&mut done);
        self.maps.repin(&self.folder.join("maps"), &mut done);
        done
    }

    fn mute(&mut self, who: QuietKey, time: Duration) {
        // The map forgets what was not asked for lately, and the host's own namespace is never of interest.
        let (who, time) = match sightings::host_cookie() {
            Some(host) if host == who.cookie => {
                let cgroup = EVERYBODY;
                (QuietKey { cgroup, ..who }, Duration::MAX)
            }
            _ => (who, time),
        };
        let until = monotonic().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
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
        Ok(establish::remove_folders(&self.folder)?)
    }
}
