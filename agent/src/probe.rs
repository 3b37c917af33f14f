//! Proves that the programs act on what is in the pods' cgroup: a child of the agent joins it, makes a network namespace of
//! its own, which is armed as a pod's is, and makes connections whose end shows which program ran. An attach that succeeds
//! proves nothing: on a cgroup that is not the pods' it catches nobody.

mod child;

use std::{
    collections::HashSet,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use k8s_openapi::api::core::v1::Container;
use serde_json::json;
use sidestep_contract::{IstioInit, Policy};
use sidestep_ebpf_common::KernelOffsets;
use sidestep_kernel::netns::{Namespace, NetnsError};
use thiserror::Error;

pub use self::child::run as child;
use crate::{
    cgroup::{OwnCgroup, Use},
    dataplane::{Bpf, Dataplane},
    preflight::PinFolder,
    reconcile::{
        ArmError, Armed,
        take::{self, Litter, Wish},
    },
    rules::Allowed,
    sandbox::PodSandbox,
};

/// The subcommand that is the child.
pub const COMMAND: &str = "probe";

/// What the child is told, and what it answers when it has done it.
mod word {
    pub(super) const READY: &str = "ready";
    pub(super) const LISTEN: &str = "listen";
    pub(super) const AS_PROXY: &str = "as-proxy";
    pub(super) const AS_APPLICATION: &str = "as-application";
    pub(super) const DONE: &str = "done";
}

/// What the probe found wrong.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// There is no cgroup for it.
    #[error(
        "the probe cannot make a cgroup in {cgroup}: {error}; is the node's cgroup hierarchy mounted writable?"
    )]
    Cgroup {
        /// The pods' cgroup.
        cgroup: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The child.
    #[error("the probe did not come to its end: {0}")]
    Child(String),
    /// Its namespace could not be armed.
    #[error("the probe's network namespace: {0}")]
    Arm(#[from] ArmError),
    /// Programs that did nothing, or something else.
    #[error("{0}")]
    Unproven(String),
}

impl From<NetnsError> for ProbeError {
    fn from(error: NetnsError) -> Self {
        Self::Arm(error.into())
    }
}

/// Runs it with programs and maps of its own, on a cgroup of its own among the pods': no running pod gets this agent's
/// programs before they have shown what they do. Nothing of it stays.
pub fn rehearse(
    pins: &mut PinFolder,
    cgroup: &Path,
    offsets: KernelOffsets,
) -> Result<(), ProbeError> {
    let own = own_cgroup(cgroup, Use::Rehearsal)?;
    let mut dataplane = Bpf::rehearse(pins, own.path(), offsets).map_err(ArmError::from)?;
    let done = run(&mut dataplane, own.path());
    let removed = dataplane.remove().map_err(ArmError::from);
    done.and_then(|()| Ok(removed?))
}

/// Runs it. Nothing of it stays.
pub fn run(dataplane: &mut impl Dataplane, cgroup: &Path) -> Result<(), ProbeError> {
    let own = own_cgroup(cgroup, Use::Probe)?;
    let mut child = Probe::start(own.path())?;
    child.expect(word::READY)?;
    let pid = child.process.id();
    let sandbox = PodSandbox {
        namespace: Namespace::open(&format!("/proc/{pid}/ns/net"))?,
        name_servers: Vec::new(),
        pids: Some(vec![pid.cast_signed()]),
        given: Some(Vec::new()),
    };
    let mut armed = None;
    let done = prove(dataplane, &sandbox, &mut child, &mut armed);
    if let Some(armed) = armed {
        let removed = dataplane
            .disarm(armed.cookie)
            .and_then(|()| dataplane.forget_all(&HashSet::from([armed.cookie])))
            .and_then(|()| dataplane.delete_rules(&armed.rules));
        removed.map_err(ArmError::from)?;
    }
    done
}

fn own_cgroup(inside: &Path, what: Use) -> Result<OwnCgroup, ProbeError> {
    OwnCgroup::new(inside, what).map_err(|error| ProbeError::Cgroup {
        cgroup: inside.to_owned(),
        error,
    })
}

fn prove(
    dataplane: &mut impl Dataplane,
    sandbox: &PodSandbox,
    child: &mut Probe,
    armed: &mut Option<Armed>,
) -> Result<(), ProbeError> {
    // The child has one user id. First the pod's proxy has it, so that it listens as the proxy …
    *armed = arm(dataplane, sandbox, &policy(0)?, None)?;
    child.tell(word::LISTEN)?;
    let cookie = armed.as_ref().map(|armed| armed.cookie);
    let active = cookie.map(|cookie| dataplane.is_active(cookie));
    if active.transpose().map_err(ArmError::from)? != Some(true) {
        return Err(ProbeError::Unproven(
            "sock_ops did not notice a proxy that listens".to_owned(),
        ));
    }
    child.tell(word::AS_PROXY)?;
    // … then another, so that it is the application.
    let again = arm(dataplane, sandbox, &policy(1337)?, armed.as_ref())?;
    *armed = again.or_else(|| armed.take());
    child.tell(word::AS_APPLICATION)
}

fn arm(
    dataplane: &mut impl Dataplane,
    sandbox: &PodSandbox,
    policy: &Policy,
    before: Option<&Armed>,
) -> Result<Option<Armed>, ArmError> {
    let wish = Wish {
        policy,
        allowed: Allowed::default(),
        namespace: "",
        strict: true,
    };
    // What cannot be taken back is swept by the next agent.
    take::arm(dataplane, sandbox, &wish, before, &mut Litter::default())
}

/// Everything captured, both families, DNS too.
pub(crate) fn policy(proxy: u32) -> Result<Policy, ProbeError> {
    let words = format!(
        "istio-iptables -p 15001 -z 15006 -u {proxy} -m REDIRECT -i * -b * --redirect-dns --capture-all-dns --dual-stack"
    );
    let args: Vec<&str> = words.split(' ').collect();
    let container = json!({"name": "istio-init", "args": args});
    let wrong = |error: String| ProbeError::Child(format!("its policy: {error}"));
    let container: Container =
        serde_json::from_value(container).map_err(|error| wrong(error.to_string()))?;
    let init = IstioInit::read(0, &container);
    init.policy.map_err(|leave| wrong(leave.to_string()))
}

struct Probe {
    process: Child,
    words: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Probe {
    fn start(cgroup: &Path) -> Result<Self, ProbeError> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(COMMAND)
            .arg(cgroup)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let failed = |error: &io::Error| ProbeError::Child(error.to_string());
        let mut process = command.spawn().map_err(|error| failed(&error))?;
        let missing = || ProbeError::Child("no pipe".to_owned());
        let words = process.stdin.take().ok_or_else(missing)?;
        let answers = process.stdout.take().ok_or_else(missing)?;
        Ok(Self {
            process,
            words,
            answers: BufReader::new(answers),
        })
    }

    /// Tells it to do something, and waits until it has.
    fn tell(&mut self, word: &str) -> Result<(), ProbeError> {
        writeln!(self.words, "{word}").map_err(|error| ProbeError::Child(error.to_string()))?;
        self.expect(word::DONE)
    }

    /// It ends by itself after a while, so this does not wait for ever.
    fn expect(&mut self, word: &str) -> Result<(), ProbeError> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        read.map_err(|error| ProbeError::Child(error.to_string()))?;
        match line.trim() {
            line if line == word => Ok(()),
            "" => Err(ProbeError::Child("it ended early".to_owned())),
            line => Err(ProbeError::Unproven(line.to_owned())),
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Both fail only where it has ended.
        let _ended = self.process.kill();
        let _ended = self.process.wait();
    }
}
