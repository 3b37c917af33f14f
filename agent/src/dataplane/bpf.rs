//! The real dataplane: BPF programs and maps, pinned so that they outlive the agent.

mod establish;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::File,
    net::IpAddr,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    path::PathBuf,
    time::Duration,
};

use sidestep_ebpf_common::{
    FlowKey, ProxyState, Row,
    row::RowCounts,
    shortcut::EndKey,
    sighting::{EVERYBODY, QuietKey},
};
use sidestep_kernel::{
    hooks::Hooks,
    link::{Link, LinkError, Target, pin_error, remove_file},
    netns::{Cookie, host_cookie},
    object::Object,
    repaired::Repaired,
    storage::Storage,
    template::Template,
    usage::Usage,
};

use super::{
    Capacity, Dataplane, DataplaneError, Repairs, hooks::INBOUND, maps::Maps, others::Others, pins,
};
use crate::{
    clock::monotonic,
    preflight::{self, PinFolder},
    rules::Rules,
    sandbox::listeners::{Found, Listener},
    shortcut::{Established, ShortcutStatus},
};

/// Programs, maps and links of one node.
pub struct Bpf {
    folder: PathBuf,
    object: Object,
    inbound: Template,
    maps: Maps,
    /// `None` once they are taken away.
    hooks: Option<Hooks>,
    pods: HashMap<Cookie, Link>,
    last_rules_id: u32,
    shortcut: Established,
    others: Others,
    /// Where all of it is pinned; a rehearsal is in the folder of who runs it.
    pins: Option<PinFolder>,
}

impl Bpf {
    fn pod_pin(&self, pod: Cookie) -> PathBuf {
        self.folder.join("pods").join(pod.to_string())
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
        Ok(self.maps.pods.keys().collect::<Result<_, _>>()?)
    }

    fn new_rules_id(&mut self) -> u32 {
        self.last_rules_id + 1
    }

    fn write_rules(&mut self, rules: &Rules) -> Result<(), DataplaneError> {
        self.last_rules_id = self.last_rules_id.max(rules.record.rules);
        for prefix in &rules.ports {
            self.maps.ports.insert(prefix.length, prefix.key)?;
        }
        for prefix in &rules.addrs {
            self.maps.addrs.insert(prefix.length, prefix.key)?;
        }
        for key in &rules.groups {
            self.maps.groups.insert(key, 1)?;
        }
        Ok(())
    }

    fn delete_rules(&mut self, rules: &Rules) -> Result<(), DataplaneError> {
        for prefix in &rules.ports {
            self.maps.ports.remove(prefix.length, prefix.key)?;
        }
        for prefix in &rules.addrs {
            self.maps.addrs.remove(prefix.length, prefix.key)?;
        }
        for key in &rules.groups {
            self.maps.groups.remove(key)?;
        }
        Ok(())
    }

    fn sweep_rules(&mut self) -> Result<(), DataplaneError> {
        let records = self.maps.pods.iter();
        let live: Result<Vec<u32>, _> =
            records.map(|r| r.map(|(_, record)| record.rules)).collect();
        Ok(self.maps.sweep_rules(&live?)?)
    }

    fn open_state(&mut self, pod: Cookie) -> Result<(), DataplaneError> {
        if self.maps.counts.get(&pod)?.is_none() {
            self.maps
                .counts
                .insert(pod, RowCounts([0; Row::ALL.len()]))?;
        }
        if self.maps.proxies.get(&pod)?.is_none() {
            self.maps.proxies.insert(pod, ProxyState::default())?;
        }
        if self.maps.open.get(&pod)?.is_none() {
            self.maps.open.insert(pod, 0)?;
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
        let target = Target {
            open: netns,
            id,
            cgroup: None,
        };
        let link = Link::establish(INBOUND, program.as_fd(), target, path)?;
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
        Ok(self.maps.put_listener(pod, socket)?)
    }

    fn commit(&mut self, pod: Cookie, rules: &Rules) -> Result<(), DataplaneError> {
        self.maps.pods.insert(pod, rules.record)?;
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
        Ok(self.maps.proxies.insert(pod, state)?)
    }

    fn rules_of(&self, pod: Cookie) -> Result<Option<u32>, DataplaneError> {
        let record = self.maps.pods.get(&pod)?;
        Ok(record.map(|record| record.rules))
    }

    fn has_listener(&self, pod: Cookie) -> bool {
        self.maps.has_listener(pod)
    }

    fn is_active(&self, pod: Cookie) -> Result<bool, DataplaneError> {
        let state = self.maps.proxies.get(&pod)?;
        Ok(state.is_some_and(|state| state.active != 0))
    }

    fn disarm(&mut self, pod: Cookie) -> Result<(), DataplaneError> {
        self.shortcut.dismiss(pod);
        // Also a pin that could not be removed the last time.
        self.pods.remove(&pod);
        remove_file(&self.pod_pin(pod))?;
        self.maps.pods.remove(&pod)?;
        self.maps.proxies.remove(&pod)?;
        self.maps.open.remove(&pod)?;
        self.maps.counts.remove(&pod)?;
        self.maps.remove_listeners(pod);
        Ok(())
    }

    fn keeper(&self, pod: Cookie) -> Option<String> {
        self.others.keeper(pod)
    }

    fn layouts(&self) -> BTreeMap<String, usize> {
        let own = self.folder.file_name().unwrap_or_default();
        let own = (own.to_string_lossy().into_owned(), self.pods.len());
        let others = self.others.count();
        let others = others.map(|(name, pods)| (name.to_owned(), pods));
        others.chain([own]).collect()
    }

    fn is_attached(&self, pod: Cookie) -> Result<bool, DataplaneError> {
        match self.pods.get(&pod) {
            Some(link) => Ok(link.target()?.is_some()),
            None => Ok(false),
        }
    }

    fn counts(&self, pod: Cookie) -> Vec<(Row, u64)> {
        let Ok(Some(per_cpu)) = self.maps.counts.get(&pod) else {
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
        Ok(self.maps.open()?)
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
        Ok(self.maps.forget(pod, ended, miscounted)?)
    }

    fn forget_all(&mut self, pods: &HashSet<Cookie>) -> Result<(), DataplaneError> {
        Ok(self.maps.forget_all(|pod| pods.contains(&pod))?)
    }

    fn capacity(&self) -> Capacity {
        let of = |map| {
            self.object
                .capacity(map)
                .and_then(|room| room.try_into().ok())
        };
        Capacity {
            pods: of("PODS").unwrap_or(0),
            flows: of("FLOWS").unwrap_or(0),
        }
    }

    fn kept(&self) -> Vec<Storage<'_>> {
        let own = self.object.storage("SOCKS");
        own.into_iter().chain(self.shortcut.kept()).collect()
    }

    fn beside(&self, pod: Cookie, ip: IpAddr) -> Option<bool> {
        self.shortcut.beside(pod, ip)
    }

    fn redirected_by(&self, end: &EndKey) -> u64 {
        self.shortcut.redirected_by(end)
    }

    fn usage(&self) -> Vec<Usage> {
        let mut usage = self.object.usage();
        usage.extend(self.shortcut.usage());
        usage
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
        // Where somebody removed the folder, another agent may have made it meanwhile.
        if let Some(Err(error)) = self.pins.as_mut().map(PinFolder::claim) {
            done.errors.push(error.into());
            return done;
        }
        if let Err(error) = establish::make_folders(&self.folder) {
            done.errors.push(error.into());
        }
        let mut repaired = Repaired::default();
        if let Some(hooks) = &mut self.hooks {
            hooks.repair(&self.object, &mut repaired);
        }
        self.object.repin_maps(&mut repaired);
        done.add(repaired);
        self.repin_pods(&mut done);
        self.others.look_after(&mut done);
        done
    }

    fn mute(&mut self, who: QuietKey, time: Duration) {
        // The map forgets what was not asked for lately, and the host's own namespace is never of interest.
        let (who, time) = match host_cookie() {
            Some(host) if host == who.cookie => {
                let cgroup = EVERYBODY;
                (QuietKey { cgroup, ..who }, Duration::MAX)
            }
            _ => (who, time),
        };
        let until = monotonic().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        // A hint that cannot be written only means that the agent is told again.
        let _told_again = self.maps.quiet.insert(who, until);
    }

    fn remove(&mut self) -> Result<(), DataplaneError> {
        for pod in self.armed()? {
            self.disarm(pod)?;
        }
        self.shortcut.remove();
        // Writers first: nothing may be captured that the readers could not explain any more.
        if let Some(hooks) = self.hooks.take() {
            hooks.remove()?;
        }
        self.object.unpin_maps()?;
        Ok(establish::remove_folders(&self.folder)?)
    }
}
