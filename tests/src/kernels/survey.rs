//! The part that runs on the kernel in question.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Instant,
};

use serde::{Deserialize, Serialize};
use sidestep_agent::shortcut::{
    Options, Readers,
    selftest::{Check, prove},
};

use crate::{
    binary,
    cgroup::Cgroup,
    redirect::Node,
    torture::run::{Progress, run},
};

/// What was found on a kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Survey {
    /// As `uname -r` tells it.
    pub release: String,
    /// As `uname -v` tells it.
    pub version: String,
    /// The programs that redirect connections.
    pub interception: Interception,
    /// The shortcut, as the agent itself proves it.
    pub selftest: SelfTest,
    /// Random streams through it; nothing where it is off.
    pub torture: Option<Torture>,
}

/// The programs that redirect connections.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Interception {
    /// The hooks that have one, by the kernel's names.
    pub hooks: Vec<String>,
    /// Why the agent did not get ready.
    pub failure: Option<String>,
    /// How long it took to get ready, in milliseconds.
    pub milliseconds: u64,
}

/// The agent's own proof of the shortcut.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SelfTest {
    /// Every check.
    pub checks: Vec<Check>,
    /// Why the shortcut is off; absent where it is on.
    pub off: Option<String>,
    /// Why only those applications send past TCP that ask for it; absent where all may.
    pub not_from_applications: Option<String>,
    /// Why nothing is put into applications' sockets; absent where it can be.
    pub not_into_applications: Option<String>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// How much of the shortcut is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
pub enum On {
    /// Connections are captured, and that is all.
    Nothing,
    /// Sidecars, and applications that ask for it.
    Sidecars,
    /// Any application.
    Applications,
}

impl SelfTest {
    /// What it found to be safe.
    pub const fn on(&self) -> On {
        match (&self.off, &self.not_from_applications) {
            (Some(_), _) => On::Nothing,
            (None, Some(_)) => On::Sidecars,
            (None, None) => On::Applications,
        }
    }
}

/// Random streams, every byte checked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Torture {
    /// Connections made.
    pub connections: u64,
    /// Ends that got a wrong byte.
    pub corrupted: u64,
    /// Ends that did not get everything.
    pub lost: u64,
    /// Ends at which nothing moved any more.
    pub stuck: u64,
    /// Messages that went past TCP.
    pub redirected: u64,
    /// What went wrong, the first few.
    pub faults: Vec<String>,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// Tries everything on the running kernel, with so many connections of torture. Needs root.
pub fn survey(connections: u64) -> Survey {
    let selftest = selftest();
    Survey {
        release: sysctl("kernel/osrelease"),
        version: sysctl("kernel/version"),
        interception: interception(),
        torture: (selftest.off.is_none() && connections > 0).then(|| torture(connections)),
        selftest,
    }
}

fn sysctl(name: &str) -> String {
    let text = fs::read_to_string(Path::new("/proc/sys").join(name));
    text.map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
}

fn interception() -> Interception {
    let start = Instant::now();
    let node = Node::without_agent();
    // The kit panics with the agent's last words.
    let ready = catch_unwind(AssertUnwindSafe(|| node.start_agent()));
    let milliseconds = since(start);
    let mut hooks = links(&node.folders().pins());
    hooks.sort();
    Interception {
        hooks,
        failure: ready.err().map(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            text.unwrap_or("the agent is not ready").to_owned()
        }),
        milliseconds,
    }
}

/// The names of the links that an agent has pinned, of whatever version it is.
fn links(pins: &Path) -> Vec<String> {
    let folders = fs::read_dir(pins).into_iter().flatten().flatten();
    let links = folders.flat_map(|version| fs::read_dir(version.path().join("links")));
    links
        .flatten()
        .flatten()
        .map(|link| link.file_name().to_string_lossy().into_owned())
        .collect()
}

fn selftest() -> SelfTest {
    let all = Cgroup::new("survey");
    let pods = all.child("pods");
    let verdict = prove(&binary("sidestep-agent"), pods.path());
    SelfTest {
        checks: verdict.checks,
        off: verdict.shortcut.err(),
        not_from_applications: verdict.from_application.err(),
        not_into_applications: verdict.into_application.err(),
        milliseconds: u64::try_from(verdict.took.as_millis()).unwrap_or(u64::MAX),
    }
}

fn torture(connections: u64) -> Torture {
    let start = Instant::now();
    let options = Options {
        readers: Readers::Trusted, // they are ours
        ..Options::default()
    };
    let done = run(
        Some(options),
        connections,
        Progress::default(),
        None,
        |_| {},
    );
    let done = done.expect("nothing is written to files");
    let report = done.report;
    Torture {
        connections: done.connections,
        corrupted: report.corrupted,
        lost: report.lost,
        stuck: report.stuck,
        redirected: done.counts.get("redirected").copied().unwrap_or(0),
        faults: report
            .faults
            .iter()
            .map(|(connection, fault)| format!("connection {connection}: {fault}"))
            .collect(),
        milliseconds: since(start),
    }
}

fn since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
