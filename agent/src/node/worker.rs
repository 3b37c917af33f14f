//! The thread that owns the kernel side.

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use sidestep_ebpf_common::flow::FLOW_SHARE;
use sidestep_runtime::{Condition, Heartbeat, Readiness};
use tokio::runtime::Handle;

use super::{
    Message, Settings,
    hearing::Hearing,
    proof::Proof,
    start::{Started, start},
};
use crate::{
    dataplane::Bpf,
    metrics::Metrics,
    pods::{
        observed::{Change, Pods, Step},
        wanted::PodName,
    },
    preflight::Lock,
    reconcile::{Mode, PodEvent, Reconciler},
    report::{Report, Reports},
    sandbox::discover::InCgroups,
    status::Status,
};

/// Between looks at what all pods share: links, pins and maps.
const CHECK: Duration = Duration::from_secs(5);
/// Between attempts to start.
const FIRST_ATTEMPT: Duration = Duration::from_secs(1);
const LAST_ATTEMPT: Duration = Duration::from_secs(30);
/// Most repairs that the status remembers.
const REPAIRS: usize = 100;

pub(super) struct Worker {
    settings: Settings,
    readiness: Readiness,
    heartbeat: Heartbeat,
    programs: Condition,
    listed: Condition,
    metrics: Metrics,
    reports: Reports,
    messages: Sender<Message>,
    pods: Pods,
    repairs: Vec<String>,
}

/// What there is once programs are attached.
struct Node {
    reconciler: Reconciler<Bpf, InCgroups>,
    cgroup: PathBuf,
    happenings: Receiver<(PodName, &'static str, String)>,
    hearing: Hearing,
    proof: Proof,
    _lock: Lock,
}

impl Worker {
    pub(super) fn new(
        settings: Settings,
        readiness: Readiness,
        heartbeat: Heartbeat,
        metrics: Metrics,
        reports: Reports,
        messages: Sender<Message>,
    ) -> Self {
        Self {
            programs: readiness.condition("programs", "not attached yet"),
            listed: readiness.condition("pods", "the API server has not told of them yet"),
            settings,
            readiness,
            heartbeat,
            metrics,
            reports,
            messages,
            pods: Pods::default(),
            repairs: Vec::new(),
        }
    }

    /// Works until it is told to stop. Where it cannot start it says why, and tries again.
    pub(super) fn work(mut self, inbox: &Receiver<Message>) {
        let mut wait = FIRST_ATTEMPT;
        loop {
            self.heartbeat.beat();
            match self.start() {
                Ok(node) => {
                    self.programs.met();
                    tracing::info!(cgroup = %node.cgroup.display(), "ready to arm pods");
                    return self.serve(node, inbox);
                }
                Err(error) => {
                    let why = format!("{error:#}");
                    tracing::error!(error = why, retry_s = wait.as_secs(), "cannot start");
                    self.programs.unmet(why);
                }
            }
            if self.idle(inbox, Instant::now() + wait) {
                return;
            }
            wait = (wait * 2).min(LAST_ATTEMPT);
        }
    }

    /// Listens without programs; whether it is told to stop.
    fn idle(&mut self, inbox: &Receiver<Message>, until: Instant) -> bool {
        loop {
            self.heartbeat.beat();
            let left = until.saturating_duration_since(Instant::now());
            match inbox.recv_timeout(left) {
                Ok(Message::Pods(change)) => {
                    self.take(change);
                }
                Ok(Message::Ask(question)) => {
                    let _asker_left = question.send(self.status(None));
                }
                Ok(Message::Count(reply)) => {
                    let _asker_left = reply.send(Default::default());
                }
                Ok(Message::Seen) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    fn start(&self) -> anyhow::Result<Node> {
        let runtime = Handle::current();
        let _entered = runtime.enter();
        let Started {
            dataplane,
            sightings,
            cgroup,
            lock,
        } = start(&self.settings)?;
        let (told, happenings) = channel();
        let metrics = self.metrics.clone();
        let tell = move |name: &PodName, happening: PodEvent<'_>| {
            if let Some((reason, note)) = hear(&metrics, &happening) {
                let _the_agent_ended = told.send((name.clone(), reason, note));
            }
        };
        let manner = Mode::node(self.settings.strict, self.settings.sandbox_patience);
        let sandboxes = InCgroups::new(cgroup.clone());
        let mut node = Node {
            reconciler: Reconciler::new(dataplane, sandboxes, manner, Box::new(tell)),
            cgroup,
            happenings,
            hearing: Hearing::start(
                &runtime,
                sightings,
                self.messages.clone(),
                self.metrics.clone(),
            ),
            proof: Proof::given(),
            _lock: lock,
        };
        node.reconciler.want(self.pods.entries())?;
        Ok(node)
    }

    fn serve(&mut self, mut node: Node, inbox: &Receiver<Message>) {
        let mut next_check = Instant::now() + CHECK;
        self.report(&node);
        loop {
            self.heartbeat.beat();
            let retry = node.reconciler.next_retry();
            let wake = retry.map_or(next_check, |retry| retry.min(next_check));
            match inbox.recv_timeout(wake.saturating_duration_since(Instant::now())) {
                Ok(Message::Pods(change)) => self.follow(&mut node, change),
                Ok(Message::Seen) => self.hear(&mut node),
                Ok(Message::Ask(question)) => {
                    let _asker_left = question.send(self.status(Some(&node)));
                }
                Ok(Message::Count(reply)) => {
                    let (states, lingering) = node.reconciler.states();
                    let shortcut = node.reconciler.shortcut();
                    let _asker_left = reply.send((states, lingering, shortcut));
                }
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    return leave(&mut node.reconciler);
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= wake {
                self.check(&mut node);
                next_check = Instant::now() + CHECK;
            }
            self.report(&node);
        }
    }

    fn take(&mut self, change: Change) -> Step {
        let step = self.pods.take(change);
        if self.pods.are_listed() {
            self.listed.met();
        }
        step
    }

    fn follow(&mut self, node: &mut Node, change: Change) {
        match self.take(change) {
            Step::Everything => {
                if let Err(error) = node.reconciler.want(self.pods.entries()) {
                    tracing::error!(%error, "reconcile incomplete; will retry");
                }
            }
            Step::Apply(name) => {
                if let Some(entry) = self.pods.entry(&name) {
                    node.reconciler.apply(&name, entry);
                }
            }
            Step::Forget(name) => node.reconciler.forget(&name),
            Step::Nothing => {}
        }
    }

    /// Some of what programs told, so that other messages have their turn.
    fn hear(&self, node: &mut Node) {
        let heard = node.hearing.take();
        if heard.more {
            let _always_there = self.messages.send(Message::Seen);
        }
        for sighting in &heard.sightings {
            self.metrics.sighted(sighting.seen);
            node.reconciler.seen(sighting);
        }
        if heard.lost {
            node.reconciler.missed();
        }
    }

    fn check(&mut self, node: &mut Node) {
        if node.hearing.is_hard_of() {
            node.reconciler.missed();
        }
        let done = node.reconciler.pass();
        self.metrics.restored(done.restored.len());
        if let Some(error) = done.failure() {
            tracing::error!(error, "check failed; trying again");
            self.programs.unmet(format!("check failed: {error}"));
        } else {
            // What was restored is attached, and nobody has seen it act yet.
            let again = !done.restored.is_empty();
            let proof = &mut node.proof;
            match proof.renew(node.reconciler.dataplane(), &node.cgroup, again) {
                None => self.programs.met(),
                Some(why) => self.programs.unmet(why),
            }
        }
        for what in done.restored {
            tracing::warn!(what, "was lost, and is restored");
            self.repairs.push(what);
        }
        let excess = self.repairs.len().saturating_sub(REPAIRS);
        self.repairs.drain(..excess);
    }

    /// Sends what happened meanwhile as Events.
    fn report(&self, node: &Node) {
        for (name, reason, note) in node.happenings.try_iter() {
            if let Some(uid) = self.pods.uid(&name).cloned() {
                self.reports.send(Report {
                    name,
                    uid,
                    reason,
                    note,
                });
            }
        }
    }

    fn status(&self, node: Option<&Node>) -> Status {
        let missing = self.readiness.missing();
        let deaf = node.and_then(|node| node.hearing.weakness());
        Status {
            ready: missing.is_empty(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: Some(self.settings.node.clone()),
            cgroup: node.map_or_else(PathBuf::new, |node| node.cgroup.clone()),
            pods: node.map_or_else(Vec::new, |node| node.reconciler.status()),
            shortcut: node
                .map(|node| node.reconciler.shortcut())
                .unwrap_or_default(),
            errors: missing.into_iter().chain(deaf).collect(),
            repairs: self.repairs.clone(),
        }
    }
}

/// Where no pod depends on the programs they go with the agent, so that nothing is left of Sidestep once its pods and then
/// its agents are gone. Else everything stays.
fn leave(reconciler: &mut Reconciler<Bpf, InCgroups>) {
    match reconciler.remove_if_idle() {
        Ok(true) => tracing::info!("no pod is armed: everything was taken out of the kernel"),
        Ok(false) => tracing::info!("programs, maps and links stay, for the pods that are armed"),
        Err(error) => {
            tracing::error!(%error, "what running pods need without an agent may be incomplete in the kernel: start another soon");
        }
    }
}

/// Counts what happened; the answer is the Event that somebody should see.
fn hear(metrics: &Metrics, happening: &PodEvent<'_>) -> Option<(&'static str, String)> {
    match happening {
        PodEvent::Armed { took, reaction } => {
            metrics.armed(*took, *reaction);
            None
        }
        PodEvent::Failed(error) => {
            metrics.failed(error.reason());
            let note = format!("Sidestep cannot take over yet, and the gate waits: {error}");
            Some(("NotArmed", note))
        }
        PodEvent::Left(left) => {
            metrics.left(left.reason());
            Some((
                "NotAccelerated",
                format!("Sidestep leaves this pod alone: {left}"),
            ))
        }
        PodEvent::NoSandbox => {
            metrics.failed("no-sandbox");
            let note = "none of the pod's processes was seen in a network namespace of its own: does its sandbox start?";
            Some(("NoSandbox", note.to_owned()))
        }
        PodEvent::Refused { count } => {
            metrics.refused(*count);
            let note = format!(
                "connections were refused: it has {FLOW_SHARE} captured connections open, the most that one pod may have, or \
                 all pods of the node have as many as can be remembered; does a program leak connections?"
            );
            Some(("ConnectionsRefused", note))
        }
        PodEvent::Released => {
            metrics.released();
            None
        }
    }
}
