//! The thread that owns the kernel side, and does one thing at a time: pods come from a [`Source`], a folder or the API server;
//! what fails or goes away is looked after at every check. With [`Duties`] it also does what is only done on a Kubernetes node.

mod duties;
mod proof;
mod sightings;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use sidestep_runtime::{Condition, Readiness};
use tokio::sync::oneshot;

pub(crate) use self::{
    duties::{Duties, Note, tell},
    proof::{Proof, prove},
    sightings::SightingQueue,
};
use crate::{
    dataplane::Bpf,
    metrics::Snapshot,
    pods::{Source, Step},
    reconcile::Reconciler,
    sandbox::Node,
    shortcut::ShortcutStatus,
    status::{Ask, Status},
};

/// Most repairs that the status remembers.
const REPAIRS: usize = 100;

/// What the thread is told.
#[derive(Debug)]
pub(crate) enum Message<C> {
    /// From the source: something changed.
    Pods(C),
    /// From the kernel: sightings wait.
    Seen,
    /// Somebody wants to know something.
    Ask(Ask),
    /// Somebody wants metrics.
    Count(oneshot::Sender<Snapshot>),
    /// The end.
    Stop,
}

/// Programs that are attached, and the pods that they act for.
pub(crate) struct Worker<S, N> {
    pub(crate) reconciler: Reconciler<Bpf, N>,
    pub(crate) source: S,
    /// The name of the Kubernetes node.
    pub(crate) node: Option<String>,
    pub(crate) cgroup: PathBuf,
    /// Between checks of what all pods share: links, pins and maps.
    pub(crate) interval: Duration,
    pub(crate) readiness: Readiness,
    /// Met while the last check found or made everything as it should be.
    pub(crate) programs: Condition,
    pub(crate) duties: Option<Duties>,
    /// Empty at first.
    pub(crate) repairs: Vec<String>,
}

impl<S: Source, N: Node> Worker<S, N> {
    /// Works until it is told to stop.
    pub(crate) fn work(&mut self, inbox: &Receiver<Message<S::Change>>) {
        let mut next_check = Instant::now() + self.interval;
        if let Some(duties) = &self.duties {
            duties.metrics.tried(true);
        }
        loop {
            if let Some(duties) = &self.duties {
                duties.heartbeat.beat();
                duties.report(&self.source);
            }
            let retry = self.reconciler.next_retry();
            let wake = retry.map_or(next_check, |retry| retry.min(next_check));
            match inbox.recv_timeout(wake.saturating_duration_since(Instant::now())) {
                Ok(Message::Pods(change)) => self.follow(change),
                Ok(Message::Seen) => self.see(),
                Ok(Message::Ask(question)) => self.answer(question),
                Ok(Message::Count(reply)) => {
                    let _asker_left = reply.send(self.reconciler.snapshot());
                }
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            // Also where messages never leave time for a timeout.
            if Instant::now() >= wake {
                self.check();
                next_check = Instant::now() + self.interval;
            }
        }
    }

    fn follow(&mut self, change: S::Change) {
        match self.source.take(change) {
            Step::Everything => {
                if let Err(error) = self.reconciler.want(self.source.entries()) {
                    tracing::error!(%error, "reconcile incomplete; will retry");
                }
            }
            Step::Apply(name) => {
                if let Some(entry) = self.source.entry(&name) {
                    self.reconciler.apply(&name, entry);
                }
            }
            Step::Forget(name) => self.reconciler.forget(&name),
            Step::Nothing => {}
        }
    }

    /// Takes some of the sightings that wait, so that other messages have their turn.
    fn see(&mut self) {
        let Some(duties) = &self.duties else {
            return;
        };
        let taken = duties.sightings.take();
        for sighting in &taken.sightings {
            duties.metrics.sighted(sighting.seen);
            self.reconciler.seen(sighting);
        }
        if taken.lost {
            self.reconciler.missed();
        }
    }

    fn check(&mut self) {
        if let Some(duties) = &mut self.duties
            && duties.sightings.lost_any()
        {
            self.reconciler.missed();
        }
        let done = self.reconciler.pass();
        let failure = done.failure();
        if let Some(error) = &failure {
            tracing::error!(error, "check failed; will retry");
        }
        let failure = failure.map(|error| format!("check failed: {error}"));
        // Whatever failed: that the programs were not seen to act is an alarm of its own.
        let unproven = self.unproven(!done.restored.is_empty());
        let failure = failure.or(unproven);
        if let (Some(duties), Some(node)) = (&mut self.duties, &self.node)
            && let Some(why) = duties.complaint.tells(failure.as_deref(), Instant::now())
        {
            duties.reports.node(node.clone(), why, false);
        }
        match failure {
            None => self.programs.met(),
            Some(why) => self.programs.unmet(why),
        }
        if let Some(duties) = &self.duties {
            duties.metrics.restored(done.restored.len());
        }
        for what in done.restored {
            tracing::warn!(what, "restored what was lost from the kernel");
            self.repairs.push(what);
        }
        let excess = self.repairs.len().saturating_sub(REPAIRS);
        self.repairs.drain(..excess);
    }

    /// Why the programs were not seen to act. What was just restored is attached, and nobody has seen it act yet.
    fn unproven(&mut self, restored: bool) -> Option<String> {
        let duties = self.duties.as_mut()?;
        let (proof, metrics) = (&mut duties.proof, &duties.metrics);
        let tried = |act| metrics.tried(act);
        let unproven = proof.renew(self.reconciler.dataplane(), &self.cgroup, restored, tried);
        unproven.map(ToOwned::to_owned)
    }

    fn answer(&self, question: Ask) {
        match question {
            Ask::Status(reply) => {
                let _asker_left = reply.send(self.status());
            }
            Ask::Flows(pod, reply) => {
                let _asker_left = reply.send(self.reconciler.flows(&pod));
            }
        }
    }

    fn status(&self) -> Status {
        let bare = status_without_programs(&self.readiness, self.node.as_deref());
        let duties = self.duties.as_ref();
        let weakness = duties.and_then(|duties| duties.sightings.weakness());
        let errors = self.source.errors().into_iter();
        Status {
            cgroup: self.cgroup.clone(),
            pods: self.reconciler.status(),
            layouts: self.reconciler.layouts(),
            shortcut: self.reconciler.shortcut(),
            errors: errors.chain(bare.errors).chain(weakness).collect(),
            repairs: self.repairs.clone(),
            ..bare
        }
    }
}

/// The status of an agent that has not started yet.
pub(crate) fn status_without_programs(readiness: &Readiness, node: Option<&str>) -> Status {
    let missing = readiness.missing();
    Status {
        ready: missing.is_empty(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        node: node.map(ToOwned::to_owned),
        cgroup: PathBuf::new(),
        pods: Vec::new(),
        layouts: BTreeMap::new(),
        shortcut: ShortcutStatus::default(),
        errors: missing,
        repairs: Vec::new(),
    }
}
