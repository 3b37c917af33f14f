//! The agent's life: check, establish, reconcile until told to stop, take everything away.
//!
//! Signals and questions arrive on the async side; one thread owns the kernel side and does one thing at a time.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use notify::{RecursiveMode, Watcher};
use sidestep_kernel::netns::{Namespace, NetnsError};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
};

use crate::{
    cgroup::sweep,
    dataplane::Bpf,
    pods::{
        folder::{self, Snapshot},
        wanted::{Place, PodName},
    },
    preflight,
    reconcile::{Mode, Reconciler},
    sandbox::Named,
    shortcut::{self, Bounds},
    status::{self, Ask, Status},
};

/// Most repairs that the status remembers.
const REPAIRS: usize = 100;

/// How long a file may take to be written, from its first byte to its last.
const HALF_WRITTEN: Duration = Duration::from_millis(200);

/// What the command line says.
#[derive(Debug)]
pub struct Settings {
    /// Folder of Pod files.
    pub pods: PathBuf,
    /// The pods' cgroup.
    pub cgroup: PathBuf,
    /// Folder on a bpffs.
    pub pin: PathBuf,
    /// Status socket.
    pub socket: PathBuf,
    /// Refuse raw TCP sockets.
    pub strict: bool,
    /// How far any pod's bytes may go past TCP.
    pub shortcut: Bounds,
    /// Between checks of links, pins and namespaces.
    pub check_interval: Duration,
}

/// What the agent's thread is told.
#[derive(Debug)]
pub enum Event {
    /// Something in the folder changed.
    Changed,
    /// Somebody wants to know.
    Ask(Ask),
    /// The end.
    Stop,
}

/// Runs the agent until SIGTERM or SIGINT.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    // Everything that can be wrong is found before anything is changed.
    let offsets = preflight::check(&settings.cgroup)?;
    let _alone = preflight::lock(&settings.cgroup, &settings.pin)?;
    let (events, inbox) = channel();
    // Before the first look, so that nothing falls between the two.
    let watcher = watch(&settings.pods, events.clone());
    let first = folder::read(&settings.pods)
        .with_context(|| "the folder of Pod files (--pods) cannot be read")?;
    let _watcher = watcher?;
    refuse_mistakes(&first, Bpf::is_pinned(&settings.pin))?;
    let listener = status::bind(&settings.socket)
        .await
        .with_context(|| format!("status socket {}", settings.socket.display()))?;
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let mounted = preflight::ensure_bpffs(&settings.pin)?;
    let (socket, pin) = (settings.socket.clone(), settings.pin.clone());
    let (ready, established) = tokio::sync::oneshot::channel();
    let mut thread = spawn_blocking(move || {
        sweep(&settings.cgroup);
        let proof = shortcut::Proof::start(settings.shortcut, &settings.cgroup);
        let mut dataplane = Bpf::establish(&settings.pin, &settings.cgroup, offsets)?;
        dataplane.take_shortcut(proof.establish(&settings.pin));
        let mut agent = Agent {
            reconciler: Reconciler::new(
                dataplane,
                Named,
                Mode::standalone(settings.strict),
                Box::new(|_, _| {}),
            ),
            settings,
            last_good: first,
            errors: Vec::new(),
            repairs: Vec::new(),
            failed_check: None,
        };
        agent.reconciler.want(agent.last_good.entries())?;
        tracing::info!(pods = agent.last_good.pods.len(), "ready");
        let _nobody_waits = ready.send(());
        agent.work(&inbox)
    });
    // Questions are answered once there is somebody who knows.
    let server = match established.await {
        Ok(()) => {
            let events = events.clone();
            let hand = move |question| {
                let _the_agent_ended = events.send(Event::Ask(question));
            };
            Some(status::serve(listener, Arc::new(hand)))
        }
        Err(_) => None,
    };
    let done = tokio::select! {
        _ = stop.recv() => None,
        _ = interrupt.recv() => None,
        done = &mut thread => Some(done),
    };
    let done = if let Some(done) = done {
        done
    } else {
        let _already_ended = events.send(Event::Stop);
        thread.await
    };
    if let Some(server) = server {
        server.abort();
    }
    let _already_gone = fs::remove_file(&socket);
    let done = done?;
    // Where sockets still have bytes to read that went past TCP, their maps stay pinned.
    let left = done.is_ok() && shortcut::folders(&pin).is_ok_and(|left| !left.is_empty());
    if let Some(path) = mounted.filter(|_| !left) {
        // Fails, rightly, where a start that went wrong leaves an earlier agent's pins in place.
        let unmounted = rustix::mount::unmount(&path, rustix::mount::UnmountFlags::empty());
        if done.is_ok() {
            unmounted.with_context(|| format!("unmounting {}", path.display()))?;
        }
    }
    done
}

struct Agent {
    reconciler: Reconciler<Bpf, Named>,
    settings: Settings,
    last_good: Snapshot,
    errors: Vec<String>,
    repairs: Vec<String>,
    failed_check: Option<String>,
}

impl Agent {
    /// Works until it is told to stop, then takes everything out of the kernel.
    fn work(&mut self, inbox: &Receiver<Event>) -> anyhow::Result<()> {
        let mut next_check = Instant::now() + self.settings.check_interval;
        loop {
            let retry = self.reconciler.next_retry();
            let wake = retry.map_or(next_check, |retry| retry.min(next_check));
            match inbox.recv_timeout(wake.saturating_duration_since(Instant::now())) {
                Ok(Event::Ask(question)) => {
                    let _asker_left = question.send(self.status());
                }
                Ok(Event::Changed) => self.reread(),
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            // Also where events never leave time for a timeout.
            if Instant::now() >= wake {
                self.check();
                next_check = Instant::now() + self.settings.check_interval;
            }
        }
        tracing::info!("stopping: taking programs, maps and links out of the kernel");
        Ok(self.reconciler.remove()?)
    }

    /// Reads the folder again. A file that cannot be used any more leaves its pods as they were.
    fn reread(&mut self) {
        let mut snapshot = folder::read(&self.settings.pods);
        if let Ok(first) = &snapshot
            && self
                .last_good
                .pods
                .keys()
                .any(|name| !first.pods.contains_key(name))
        {
            // Whoever is not there may be in a file that is half written: disarming is not to be done by mistake.
            std::thread::sleep(HALF_WRITTEN);
            snapshot = folder::read(&self.settings.pods);
        }
        let mut snapshot = match snapshot {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.errors = vec![error.to_string()];
                return;
            }
        };
        self.errors = snapshot.errors.iter().map(|(_, e)| e.to_string()).collect();
        for error in &self.errors {
            tracing::warn!(%error, "this file's pods stay as they were");
        }
        for (path, _) in &snapshot.errors {
            for (name, pod) in &self.last_good.pods {
                if pod.0 == *path && !snapshot.pods.contains_key(name) {
                    snapshot.pods.insert(name.clone(), pod.clone());
                }
            }
        }
        if let Err(error) = self.reconciler.want(snapshot.entries()) {
            tracing::error!(%error, "not all of it could be done; trying again");
        }
        self.last_good = snapshot;
    }

    fn check(&mut self) {
        let done = self.reconciler.pass();
        let failure = done.failure();
        if let Some(error) = &failure {
            tracing::error!(error, "check failed; trying again");
        }
        self.failed_check = failure.map(|error| format!("check failed: {error}"));
        for what in done.restored {
            tracing::warn!(what, "was lost, and is restored");
            self.repairs.push(what);
        }
        let excess = self.repairs.len().saturating_sub(REPAIRS);
        self.repairs.drain(..excess);
    }

    fn status(&self) -> Status {
        Status {
            ready: self.failed_check.is_none(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: None,
            cgroup: self.settings.cgroup.clone(),
            pods: self.reconciler.status(),
            shortcut: self.reconciler.shortcut(),
            errors: self
                .errors
                .iter()
                .chain(&self.failed_check)
                .cloned()
                .collect(),
            repairs: self.repairs.clone(),
        }
    }
}

/// At the start a mistake in any file stops the agent, before it has touched anything. Where an earlier agent's pods are
/// `taken_over`, one whose namespace went away meanwhile is no reason to leave the others without an agent.
fn refuse_mistakes(snapshot: &Snapshot, taken_over: bool) -> anyhow::Result<()> {
    let mut mistakes: Vec<String> = snapshot.errors.iter().map(|(_, e)| e.to_string()).collect();
    let mut namespaces = BTreeMap::<u64, &PodName>::new();
    for (name, (path, entry)) in &snapshot.pods {
        let Some(Place::Named(netns)) = entry.as_ref().ok().map(|wanted| &wanted.place) else {
            continue;
        };
        let file = path.display();
        match Namespace::open(netns).and_then(|n| n.cookie()) {
            Err(NetnsError::Missing(_)) if taken_over => {}
            Err(error) => mistakes.push(format!("{file}: pod {name}: {error}")),
            Ok(cookie) => {
                if let Some(other) = namespaces.insert(cookie, name) {
                    mistakes.push(format!(
                        "{file}: pod {name}: its network namespace {netns} is already that of pod {other}"
                    ));
                }
            }
        }
    }
    if mistakes.is_empty() {
        return Ok(());
    }
    bail!(mistakes.join("\n"))
}

/// Tells of changes in a folder.
fn watch(folder: &Path, events: Sender<Event>) -> anyhow::Result<impl Watcher + use<>> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _the_agent_ended = events.send(Event::Changed);
        }
    })?;
    watcher
        .watch(folder, RecursiveMode::NonRecursive)
        .with_context(|| format!("watching {}", folder.display()))?;
    Ok(watcher)
}
