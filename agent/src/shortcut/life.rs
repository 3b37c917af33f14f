//! The shortcut in the agent's life: proven while the agent starts, established if that went well, and never a reason for
//! anything else to fail.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use sidestep_agent_api::{Check, ShortcutStatus};
use sidestep_ebpf_common::shortcut::EndKey;
use sidestep_kernel::{netns::Cookie, process::trim_heaps, storage::Storage, usage::Usage};

use super::{
    Allowed, Options, Participant, Reach, Shortcut, left,
    selftest::{self, Verdict},
};
use crate::{rules::Rules, sandbox::listeners::Found};

/// What no pod can have more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// How far its bytes may go.
    pub reach: Reach,
    /// Most memory of one receiver's unread messages beside what TCP itself allows, bytes.
    pub limit: u32,
}

/// The self-test, while it runs beside everything else that a start does.
pub struct Proof {
    bounds: Bounds,
    cgroup: PathBuf,
    verdict: Option<JoinHandle<Verdict>>,
}

impl Proof {
    /// Starts it, unless the shortcut is not wanted.
    pub fn start(bounds: Bounds, cgroup: &Path) -> Self {
        let pods = cgroup.to_owned();
        let prove = move || match std::env::current_exe() {
            Ok(agent) => selftest::prove(&agent, &pods),
            Err(error) => Verdict::off(format!("the agent does not find itself: {error}")),
        };
        Self {
            bounds,
            cgroup: cgroup.to_owned(),
            verdict: (bounds.reach > Reach::Off).then(|| thread::spawn(prove)),
        }
    }

    /// Establishes the shortcut if it is proven. Otherwise whatever an earlier agent left of it is turned off.
    pub fn establish(self, pin: &Path) -> Established {
        let Self {
            bounds: Bounds { reach, limit },
            cgroup,
            verdict,
        } = self;
        let options = Options {
            limit,
            ..Options::default()
        };
        let folder = left::pins(pin);
        // Two of them would only be in each other's way.
        let mut others = Others::of(pin, Some(folder.clone()));
        others.tend();
        let verdict = match verdict.map(JoinHandle::join) {
            Some(Ok(verdict)) => verdict,
            Some(Err(_)) => Verdict::off("the self-test panicked".to_owned()),
            None => Verdict::off("the agent's setting --shortcut is off".to_owned()),
        };
        let shortcut = verdict.shortcut.clone().and_then(|()| {
            let done = Shortcut::establish(&folder, &cgroup, options);
            done.map_err(|error| error.to_string())
        });
        match &shortcut {
            Ok(_) => tracing::info!(ms = verdict.took.as_millis(), "the shortcut is proven"),
            Err(why) => {
                if reach > Reach::Off {
                    tracing::warn!(%why, "the shortcut is off");
                }
                others.except = None;
            }
        }
        others.tend();
        // The kernel's type information, read several times over, takes a hundred MiB meanwhile.
        trim_heaps();
        Established {
            reach,
            from_application: verdict.from_application,
            others,
            into_application: verdict.into_application,
            checks: verdict.checks,
            took: verdict.took,
            shortcut: shortcut.map(Box::new),
        }
    }
}

/// What other agents left pinned: off from the first look on, and gone once its last bytes are read.
#[derive(Default)]
struct Others {
    pin: PathBuf,
    /// The one that is in use.
    except: Option<PathBuf>,
    /// Since when each is off.
    off: HashMap<PathBuf, Instant>,
    next: Option<Instant>,
}

impl Others {
    fn of(pin: &Path, except: Option<PathBuf>) -> Self {
        Self {
            pin: pin.to_owned(),
            except,
            off: HashMap::new(),
            next: None,
        }
    }

    /// Retires all of them.
    fn tend(&mut self) {
        self.next = Instant::now().checked_add(AGAIN);
        let folders = left::folders(&self.pin).unwrap_or_default();
        for folder in folders {
            if Some(&folder) == self.except.as_ref() {
                continue;
            }
            let path = folder.display();
            let off = *self.off.entry(folder.clone()).or_insert_with(Instant::now);
            match left::retire_off_since(&folder, off, Duration::ZERO) {
                Ok(true) => {
                    tracing::info!(%path, "removed an earlier agent's shortcut");
                    self.off.remove(&folder);
                }
                Ok(false) => {
                    tracing::info!(%path, "turned off an earlier agent's shortcut; its maps stay until nothing is on its way to its sockets and they have read their bytes");
                }
                Err(error) => {
                    // Perhaps it is on still.
                    self.off.remove(&folder);
                    tracing::error!(%error, %path, "could not turn off an earlier agent's shortcut");
                }
            }
        }
    }

    fn tend_in_time(&mut self) {
        if self.next.is_some_and(|next| Instant::now() >= next) {
            self.tend();
        }
    }
}

/// Between attempts to take away what its sockets need.
const AGAIN: Duration = Duration::from_secs(5);

/// The shortcut, or why there is none.
pub struct Established {
    reach: Reach,
    from_application: Result<(), String>,
    others: Others,
    into_application: Result<(), String>,
    checks: Vec<Check>,
    took: Duration,
    shortcut: Result<Box<Shortcut>, String>,
}

impl Default for Established {
    fn default() -> Self {
        Self {
            reach: Reach::Off,
            from_application: Err(String::new()),
            others: Others::default(),
            into_application: Err(String::new()),
            checks: Vec::new(),
            took: Duration::ZERO,
            shortcut: Err("the agent is starting".to_owned()),
        }
    }
}

impl Established {
    /// Lets an armed pod take part, as far as it may. A pod that cannot goes by TCP.
    pub fn admit(&mut self, pod: Cookie, rules: &Rules) {
        let Ok(shortcut) = &mut self.shortcut else {
            return;
        };
        let allowed = Allowed {
            // Who wants bytes put into its sockets knows how it reads them.
            from_application: self.from_application.is_ok() || rules.allowed.into_application,
            into_application: rules.allowed.into_application && self.into_application.is_ok(),
            ..rules.allowed.within(self.reach)
        };
        let participant = Participant {
            cookie: pod,
            outbound_port: rules.record.outbound_port,
            inbound_port: rules.record.inbound_port,
            uids: rules.record.uids,
            gids: rules.record.gids,
            addresses: rules.addresses.clone(),
            allowed,
            namespace: rules.namespace.clone(),
        };
        if let Err(error) = shortcut.admit(&participant) {
            tracing::warn!(%error, pod, "could not add a pod to the shortcut; its connections stay on TCP");
        }
    }

    /// Tells whose the capture listeners are that were there before the pod took part.
    pub fn adopt_proxy(&mut self, pod: Cookie, found: &Found) {
        let Ok(shortcut) = &mut self.shortcut else {
            return;
        };
        let all = || found.inbound.iter().chain(&found.outbound);
        let Some(process) = all().find_map(|listener| listener.pid?.try_into().ok()) else {
            return;
        };
        let sockets: Vec<_> = all().filter_map(|l| l.socket.as_ref()).collect();
        if let Err(error) = shortcut.adopt_proxy(pod, process, &sockets) {
            tracing::warn!(%error, pod, "could not adopt a proxy's listeners; what they accept stays on TCP until the proxy listens again");
        }
    }

    /// Turns a pod off.
    pub fn dismiss(&mut self, pod: Cookie) {
        if let Ok(shortcut) = &mut self.shortcut
            && let Err(error) = shortcut.dismiss(pod)
        {
            tracing::error!(%error, pod, "could not take a pod out of the shortcut");
        }
    }

    /// Dismisses pods that are not armed: an earlier agent's.
    pub fn keep_only(&mut self, armed: &[Cookie]) {
        if let Ok(shortcut) = &mut self.shortcut
            && let Err(error) = shortcut.keep_only(armed)
        {
            tracing::error!(%error, "could not take an earlier agent's pods out of the shortcut");
        }
    }

    /// Restores what was lost of it, and names that; where that cannot be done everything is turned off. Takes away what
    /// earlier agents left, as soon as it can be.
    pub fn repair(&mut self) -> Vec<String> {
        self.others.tend_in_time();
        let Ok(shortcut) = &mut self.shortcut else {
            return Vec::new();
        };
        match shortcut.repair() {
            Ok(restored) => restored,
            Err(error) => {
                let why = format!("it was lost, and cannot be restored: {error}");
                tracing::error!(%why, "the shortcut is off");
                if let Err(error) = shortcut.end(Duration::ZERO) {
                    tracing::error!(%error, "could not remove all of the shortcut");
                }
                self.others.except = None;
                self.others.next = Some(Instant::now());
                self.shortcut = Err(why);
                Vec::new()
            }
        }
    }

    /// Takes everything out of the kernel that nobody's bytes are in.
    pub fn remove(&mut self) {
        if let Ok(shortcut) = &mut self.shortcut
            && let Err(error) = shortcut.remove()
        {
            tracing::error!(%error, "could not remove all of the shortcut");
        }
    }

    /// The map of what it keeps with sockets.
    pub fn kept(&self) -> Option<Storage<'_>> {
        self.shortcut.as_ref().ok()?.kept()
    }

    /// See [`Shortcut::beside`].
    pub fn beside(&self, pod: Cookie, ip: IpAddr) -> Option<bool> {
        self.shortcut.as_ref().ok()?.beside(pod, ip)
    }

    /// How many bytes this end of a connection redirected.
    pub fn redirected_by(&self, end: &EndKey) -> u64 {
        let shortcut = self.shortcut.as_ref().ok();
        shortcut.map_or(0, |shortcut| shortcut.redirected_by(end))
    }

    /// How long its programs ran.
    pub fn usage(&self) -> Vec<Usage> {
        let shortcut = self.shortcut.as_ref().ok();
        shortcut.map_or_else(Vec::new, |shortcut| shortcut.usage())
    }

    /// For people and programs.
    pub fn status(&self) -> ShortcutStatus {
        let shortcut = self.shortcut.as_ref().ok();
        let tally = shortcut
            .map(|shortcut| shortcut.tally())
            .unwrap_or_default();
        ShortcutStatus {
            on: shortcut.is_some(),
            reason: self.shortcut.as_ref().err().cloned(),
            reach: self.reach,
            not_from_applications: self.from_application.clone().err(),
            not_into_applications: self.into_application.clone().err(),
            checks: self.checks.clone(),
            selftest_ms: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            ends: shortcut.map_or(0, |shortcut| shortcut.ends()),
            counts: tally
                .into_iter()
                .map(|(count, value)| (count.name().to_owned(), value))
                .collect(),
        }
    }
}
