//! Proves the shortcut on the running kernel before any pod's connection takes it: in a network namespace and a cgroup of
//! its own, by a process that is both ends of everything.

mod applications;
mod bench;
mod checks;
mod companion;
mod endings;
mod full;
mod pair;
pub mod worker;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
pub use sidestep_agent_api::{Check, Proves};
use sidestep_ebpf_common::{Ids, shortcut::Count};
use sidestep_kernel::btf::kernel_memory_is_locked;

use super::{Allowed, Options, Participant, Reach, Shortcut, ShortcutError};
use crate::cgroup::{self, OwnCgroup, Use};

/// How long all of it may take: the agent's start waits for it.
const LIMIT: Duration = Duration::from_secs(3);
/// The same where a machine was too busy for that.
const BUSY_LIMIT: Duration = Duration::from_secs(30);
/// How long with programs that must fail: what is wrong may be stuck until nobody waits any more.
const STUCK_LIMIT: Duration = Duration::from_secs(18);
/// Small, so that connections change between TCP and the shortcut all the time.
pub const RECEIVER_LIMIT: u32 = 64 << 10;
/// The proxy's outbound port.
const OUTBOUND: u16 = 15001;
/// The proxy's inbound port.
const INBOUND: u16 = 15006;

/// The word by which the agent's program knows that it is to be the worker.
pub const WORKER: &str = "shortcut-selftest-worker";

/// What is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The shortcut, or why not.
    pub shortcut: Result<(), String>,
    /// Letting any application's sockets take part, or why not: then only those take part whose authors say so.
    pub from_application: Result<(), String>,
    /// Putting bytes into applications' sockets, or why not.
    pub into_application: Result<(), String>,
    /// Every check that was made, and what failed.
    pub checks: Vec<Check>,
    /// How long it took.
    pub took: Duration,
}

impl Verdict {
    /// Nothing is proven.
    pub fn off(why: String) -> Self {
        Self {
            shortcut: Err(why.clone()),
            from_application: Err(why.clone()),
            into_application: Err(why),
            checks: Vec::new(),
            took: Duration::ZERO,
        }
    }
}

/// Whether everything holds that something depends on.
fn proven(checks: &[Check], proves: Proves) -> Result<(), String> {
    let mut unsafe_ones = checks.iter().filter(|check| check.proves == Proves::Safety);
    if let Some(why) = unsafe_ones.find_map(|check| check.failure.clone()) {
        return Err(why);
    }
    let of_it = checks.iter().filter(|check| check.proves == proves);
    let failed: Vec<String> = of_it
        .filter_map(|check| Some(format!("{}: {}", check.name, check.failure.as_ref()?)))
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(format!("the self-test failed: {}", failed.join("; ")))
    }
}

/// What the worker says, a line each. Everything but a check wants an answer: a number.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    /// It is in a network namespace with this cookie.
    Cookie(u64),
    /// Turn the shortcut of that namespace on, or off.
    Switch(bool),
    /// How often was this counted?
    Counted(u32),
    /// What did the kernel say to an MPTCP listener in a sockhash? The error's number.
    Mptcp,
    /// Let bytes be put into applications; is it seen how they read?
    Into,
    /// A check is done.
    Checked(Check),
    /// All of them are.
    Done,
}

/// Proves it, or says why it must stay off. `worker` is the agent's own program; its cgroup is made inside of `pods`.
pub fn prove(worker: &Path, pods: &Path) -> Verdict {
    let start = Instant::now();
    let off = |why: String| Verdict {
        took: start.elapsed(),
        ..Verdict::off(why)
    };
    if kernel_memory_is_locked() {
        return off("kernel lockdown: programs may not read the kernel's memory".to_owned());
    }
    let options = Options {
        limit: RECEIVER_LIMIT,
        ..Options::default()
    };
    // A machine that is very busy may be too slow for it once. What is wrong is wrong twice.
    let passes = |examined: &Result<Examined, String>| {
        let checks = examined.as_ref().map(|(checks, _)| checks);
        checks.is_ok_and(|checks| proven(checks, Proves::Shortcut).is_ok())
    };
    let first = Some(examine(worker, pods, options, LIMIT)).filter(passes);
    match first.unwrap_or_else(|| examine(worker, pods, options, BUSY_LIMIT)) {
        Err(error) => off(error),
        Ok((checks, readers)) => {
            let shortcut = proven(&checks, Proves::Shortcut);
            Verdict {
                from_application: shortcut
                    .clone()
                    .and_then(|()| proven(&checks, Proves::Application)),
                into_application: shortcut
                    .clone()
                    .and(readers)
                    .and_then(|()| proven(&checks, Proves::IntoApplication)),
                shortcut,
                checks,
                took: start.elapsed(),
            }
        }
    }
}

/// The same with other programs, which must fail; for tests of the self-test itself.
pub fn examine_with(worker: &Path, pods: &Path, options: Options) -> Result<Vec<Check>, String> {
    examine(worker, pods, options, STUCK_LIMIT).map(|(checks, _)| checks)
}

/// The checks, and whether it can be seen how applications read.
type Examined = (Vec<Check>, Result<(), String>);

fn examine(
    worker: &Path,
    pods: &Path,
    options: Options,
    limit: Duration,
) -> Result<Examined, String> {
    // The programs on the pods' cgroup see what it does, and leave it alone: its namespace is not armed.
    let own = OwnCgroup::new(pods, Use::SelfTest)
        .map_err(|e| format!("making a cgroup in {}: {e}", pods.display()))?;
    let mut shortcut = Shortcut::load(own.path(), options).map_err(|e| e.to_string())?;
    let mptcp = shortcut
        .ask_about_mptcp(own.path())
        .map_err(|e| e.to_string())?;
    let readers = if shortcut.watch_readers() {
        Ok(())
    } else {
        let why = shortcut.cannot_watch().unwrap_or_default();
        Err(format!("it cannot be seen how applications read: {why}"))
    };
    let mut worker = Worker::start(worker, own.path())?;
    let deadline = Instant::now() + limit;
    let mut cookie = 0;
    let mut checks: Vec<Check> = Vec::new();
    loop {
        let wait = deadline.saturating_duration_since(Instant::now());
        let line = worker.lines.recv_timeout(wait).map_err(|_| {
            let last = checks.last().map_or("none", |check| &check.name);
            format!("the self-test did not end; its last check was: {last}")
        })?;
        let said: Said = serde_json::from_str(&line).map_err(|e| format!("{line}: {e}"))?;
        let answer = match said {
            Said::Cookie(of) => {
                cookie = of;
                admit(&mut shortcut, cookie, true, false).map(|()| 0)
            }
            Said::Switch(on) => admit(&mut shortcut, cookie, on, false).map(|()| 0),
            Said::Counted(number) => Ok(counted(&shortcut, number)),
            Said::Mptcp => shortcut.mptcp_answer(&mptcp),
            Said::Into => {
                let watched = u64::from(readers.is_ok());
                admit(&mut shortcut, cookie, true, true).map(|()| watched)
            }
            Said::Checked(check) => {
                let may_go_on = check.proves != Proves::Safety || check.failure.is_none();
                checks.push(check);
                if may_go_on {
                    continue;
                }
                return Ok((checks, readers));
            }
            Said::Done => return Ok((checks, readers)),
        };
        let answer = answer.map_err(|e| e.to_string())?;
        worker.answer(answer)?;
    }
}

fn admit(
    shortcut: &mut Shortcut,
    cookie: u64,
    on: bool,
    into_application: bool,
) -> Result<(), ShortcutError> {
    let root = Ids::new(&[0]).expect("one id");
    shortcut.admit(&Participant {
        cookie,
        outbound_port: OUTBOUND,
        inbound_port: INBOUND,
        uids: root,
        gids: root,
        addresses: Vec::new(),
        allowed: Allowed {
            reach: if on { Reach::Pod } else { Reach::Off },
            from_application: true,
            into_application,
        },
        namespace: String::new(),
    })
}

fn counted(shortcut: &Shortcut, number: u32) -> u64 {
    let tally = shortcut.tally();
    let found = tally
        .iter()
        .find(|(count, _): &&(Count, u64)| *count as u32 == number);
    found.map_or(0, |(_, value)| *value)
}

/// A process and its pipes.
struct Worker {
    child: Child,
    lines: Receiver<String>,
}

impl Worker {
    fn start(program: &Path, own: &Path) -> Result<Self, String> {
        let failed = |e: std::io::Error| format!("the self-test cannot start: {e}");
        let mut child = Command::new(program)
            .arg(WORKER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (tell, lines) = channel();
        if let Some(output) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if tell.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        let mut worker = Self { child, lines };
        // Its sockets belong to the cgroup it is in when it makes them, and it waits for a word before.
        cgroup::join(own, worker.child.id())
            .map_err(|e| format!("the self-test cannot start: {e}"))?;
        worker.answer(0)?;
        Ok(worker)
    }

    fn answer(&mut self, number: u64) -> Result<(), String> {
        let input = self
            .child
            .stdin
            .as_mut()
            .ok_or("the self-test has no input")?;
        writeln!(input, "{number}").map_err(|e| format!("the self-test ended early: {e}"))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}
