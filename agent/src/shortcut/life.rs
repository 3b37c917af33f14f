//! The shortcut in the agent's life: proven while the agent starts, established if that went well, and never a reason for
//! anything else to fail.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sidestep_ebpf_common::shortcut::SHORTCUT_ABI_VERSION;

use super::{
    Allowed, Options, Participant, Reach, Shortcut,
    selftest::{self, Check, Verdict},
};
use crate::{dataplane::Cookie, listeners::Found, rules::Rules};

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
        let folder = pins(pin);
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
                if let Err(error) = Shortcut::retire(&folder) {
                    tracing::error!(%error, "an earlier agent's shortcut cannot be turned off");
                }
            }
        }
        Established {
            reach,
            from_application: verdict.from_application,
            into_application: verdict.into_application,
            checks: verdict.checks,
            took: verdict.took,
            shortcut: shortcut.map(Box::new),
        }
    }
}

/// Where the shortcut is pinned: beside interception, of which it is no part.
pub fn pins(pin: &Path) -> PathBuf {
    let mut name = pin.file_name().unwrap_or_default().to_owned();
    name.push(format!("-shortcut-v{SHORTCUT_ABI_VERSION}"));
    pin.with_file_name(name)
}

/// The shortcut, or why there is none.
pub struct Established {
    reach: Reach,
    from_application: Result<(), String>,
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
            into_application: Err(String::new()),
            checks: Vec::new(),
            took: Duration::ZERO,
            shortcut: Err("the agent is starting".to_owned()),
        }
    }
}

/// What is told of the shortcut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShortcutStatus {
    /// Whether it is proven and in place.
    pub on: bool,
    /// Why it is not.
    pub reason: Option<String>,
    /// How far any pod's bytes may go.
    pub reach: Reach,
    /// Why the sockets of applications keep to TCP, but for those that ask for it; absent where they need not.
    pub not_from_applications: Option<String>,
    /// Why nothing is put into the sockets of applications that ask for it; absent where it can be.
    pub not_into_applications: Option<String>,
    /// What the self-test found, check by check.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// How long it took, milliseconds.
    #[serde(default)]
    pub selftest_ms: u64,
    /// Ends of connections that are open.
    pub ends: usize,
    /// What was counted since the programs were loaded first.
    pub counts: BTreeMap<String, u64>,
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
        };
        if let Err(error) = shortcut.admit(&participant) {
            tracing::warn!(%error, pod, "does not take part in the shortcut");
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
            tracing::warn!(%error, pod, "its proxy's connections go by TCP until it listens anew");
        }
    }

    /// Turns a pod off.
    pub fn dismiss(&mut self, pod: Cookie) {
        if let Ok(shortcut) = &mut self.shortcut
            && let Err(error) = shortcut.dismiss(pod)
        {
            tracing::error!(%error, pod, "cannot be taken out of the shortcut");
        }
    }

    /// Takes everything out of the kernel that nobody's bytes are in.
    pub fn remove(&mut self) {
        if let Ok(shortcut) = &mut self.shortcut
            && let Err(error) = shortcut.remove()
        {
            tracing::error!(%error, "not all of the shortcut is taken away");
        }
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
