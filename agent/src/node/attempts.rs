//! Attempts to start, until one succeeds; from then on the thread works.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use sidestep_runtime::{Condition, Heartbeat, Readiness};
use tokio::runtime::Handle;

use super::{
    Settings, lasting,
    start::{Started, start},
};
use crate::{
    complaint::Complaint,
    dataplane::Bpf,
    metrics::{Metrics, Snapshot},
    pods::{
        Source, Step,
        observed::{Change, Pods},
        wanted::{Entry, PodName, PodUid},
    },
    preflight::{Lock, selinux},
    reconcile::{Mode, Reconciler},
    report::Reports,
    sandbox::discover::InCgroups,
    status::{Ask, NoFlows},
    worker::{self, Duties, Message, Proof, SightingQueue, Worker},
};

/// Between checks.
const CHECK: Duration = Duration::from_secs(5);
/// How long an attempt to start may take. Where processors are scarce, the verifier and the self-test take minutes; an agent that is
/// restarted meanwhile begins with them again, and never ends.
const START: Duration = Duration::from_mins(10);
/// Between attempts to start.
const FIRST_ATTEMPT: Duration = Duration::from_secs(1);
const LAST_ATTEMPT: Duration = Duration::from_secs(30);

/// The pods that the API server tells of.
pub(super) struct Watched {
    pods: Pods,
    listed: Condition,
}

impl Watched {
    fn new(readiness: &Readiness) -> Self {
        Self {
            pods: Pods::default(),
            listed: readiness.condition("pods", "the API server has not told of them yet"),
        }
    }
}

impl Source for Watched {
    type Change = Change;

    fn take(&mut self, change: Change) -> Step {
        let step = self.pods.take(change);
        if self.pods.are_listed() {
            self.listed.met();
        }
        step
    }

    fn entries(&self) -> impl Iterator<Item = (&PodName, &Entry)> {
        self.pods.entries()
    }

    fn entry(&self, name: &PodName) -> Option<&Entry> {
        self.pods.entry(name)
    }

    fn uid(&self, name: &PodName) -> Option<&PodUid> {
        self.pods.uid(name)
    }

    fn errors(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What is there before programs are attached.
pub(super) struct Attempts {
    settings: Settings,
    readiness: Readiness,
    programs: Condition,
    source: Watched,
    heartbeat: Heartbeat,
    metrics: Metrics,
    reports: Reports,
    messages: Sender<Message<Change>>,
}

/// What a start gives, and the thread keeps.
struct Ready {
    reconciler: Reconciler<Bpf, InCgroups>,
    cgroup: PathBuf,
    notes: Receiver<worker::Note>,
    sightings: SightingQueue,
    lock: Lock,
}

impl Attempts {
    pub(super) fn new(
        settings: Settings,
        readiness: Readiness,
        heartbeat: Heartbeat,
        metrics: Metrics,
        reports: Reports,
        messages: Sender<Message<Change>>,
    ) -> Self {
        Self {
            settings,
            programs: readiness.condition("programs", "not attached yet"),
            source: Watched::new(&readiness),
            readiness,
            heartbeat,
            metrics,
            reports,
            messages,
        }
    }

    /// Works until it is told to stop. Where it cannot start it says why, and tries again.
    pub(super) fn work(mut self, inbox: &Receiver<Message<Change>>) {
        let mut wait = FIRST_ATTEMPT;
        let mut complaint = Complaint::default();
        let ready = loop {
            self.heartbeat.beat_before(START);
            match self.start() {
                Ok(ready) => break ready,
                Err(error) => {
                    let why = selinux::named(&error);
                    tracing::error!(
                        error = why,
                        retry_s = wait.as_secs(),
                        "could not start; will retry"
                    );
                    if let Some(why) = complaint.tells(Some(&why), Instant::now()) {
                        let for_good = lasting::is_for_good(&error);
                        self.reports.node(self.settings.node.clone(), why, for_good);
                    }
                    self.programs.unmet(why);
                }
            }
            if self.idle(inbox, Instant::now() + wait) {
                return;
            }
            wait = (wait * 2).min(LAST_ATTEMPT);
        };
        self.programs.met();
        tracing::info!(cgroup = %ready.cgroup.display(), "ready to arm pods");
        let mut worker = Worker {
            reconciler: ready.reconciler,
            source: self.source,
            node: Some(self.settings.node),
            cgroup: ready.cgroup,
            interval: CHECK,
            readiness: self.readiness,
            programs: self.programs,
            duties: Some(Duties {
                heartbeat: self.heartbeat,
                sightings: ready.sightings,
                proof: Proof::given(),
                metrics: self.metrics,
                notes: ready.notes,
                reports: self.reports,
                complaint,
            }),
            repairs: Vec::new(),
        };
        worker.work(inbox);
        leave(&mut worker.reconciler);
        drop(ready.lock);
    }

    /// Takes messages without programs; whether it is told to stop.
    fn idle(&mut self, inbox: &Receiver<Message<Change>>, until: Instant) -> bool {
        loop {
            self.heartbeat.beat();
            let left = until.saturating_duration_since(Instant::now());
            match inbox.recv_timeout(left) {
                Ok(Message::Pods(change)) => {
                    self.source.take(change);
                }
                Ok(Message::Ask(Ask::Status(reply))) => {
                    let status =
                        worker::status_without_programs(&self.readiness, Some(&self.settings.node));
                    let _asker_left = reply.send(status);
                }
                Ok(Message::Ask(Ask::Flows(_, reply))) => {
                    let _asker_left = reply.send(Err(NoFlows::NotArmed));
                }
                Ok(Message::Count(reply)) => {
                    let _asker_left = reply.send(Snapshot::default());
                }
                Ok(Message::Seen) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    fn start(&self) -> anyhow::Result<Ready> {
        let runtime = Handle::current();
        let _entered = runtime.enter();
        let Started {
            dataplane,
            sightings,
            cgroup,
            lock,
        } = start(&self.settings)?;
        let (tell, notes) = worker::tell(self.metrics.clone());
        let mode = Mode::node(self.settings.strict, self.settings.sandbox_patience);
        let node = InCgroups::new(cgroup.clone());
        let mut reconciler = Reconciler::new(dataplane, node, mode, tell);
        let messages = self.messages.clone();
        let wake = move || messages.send(Message::Seen).is_ok();
        let sightings = SightingQueue::start(&runtime, sightings, wake, self.metrics.clone());
        reconciler.want(self.source.entries())?;
        Ok(Ready {
            reconciler,
            cgroup,
            notes,
            sightings,
            lock,
        })
    }
}

/// Where no pod depends on the programs they go with the agent, so that nothing is left of Sidestep once its pods and then
/// its agents are gone. Else everything stays.
fn leave(reconciler: &mut Reconciler<Bpf, InCgroups>) {
    match reconciler.remove_if_idle() {
        Ok(true) => tracing::info!("no pod is armed: everything was taken out of the kernel"),
        Ok(false) => tracing::info!("kept programs, maps and links for the pods that are armed"),
        Err(error) => {
            tracing::error!(%error, "could not leave the kernel complete for running pods; start an agent on this node soon");
        }
    }
}
