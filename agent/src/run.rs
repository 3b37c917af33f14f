//! The agent's life: check, establish, reconcile until told to stop, take everything away.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use notify::{RecursiveMode, Watcher};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    dataplane::Bpf,
    netns::Namespace,
    preflight,
    reconcile::Reconciler,
    source::{self, PodName, Snapshot},
    status::{self, Ask, Status},
};

/// Most repairs that the status remembers.
const REPAIRS: usize = 100;

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
    /// Between checks of links, pins and namespaces.
    pub check_interval: Duration,
}

/// Runs the agent until SIGTERM or SIGINT.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    // Everything that can be wrong is found before anything is changed.
    let offsets = preflight::check(&settings.cgroup)?;
    let first = source::read(&settings.pods)
        .with_context(|| "the folder of Pod files (--pods) cannot be read")?;
    refuse_mistakes(&first)?;
    let listener = status::bind(&settings.socket)
        .await
        .with_context(|| format!("status socket {}", settings.socket.display()))?;
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let mounted = preflight::ensure_bpffs(&settings.pin)?;
    let dataplane = Bpf::establish(&settings.pin, &settings.cgroup, offsets)?;
    let mut agent = Agent {
        reconciler: Reconciler::new(dataplane, settings.strict),
        last_good: first,
        errors: Vec::new(),
        repairs: Vec::new(),
        cgroup: settings.cgroup,
    };
    let (ask, mut questions) = mpsc::channel::<Ask>(16);
    let (changed, mut changes) = mpsc::channel::<()>(1);
    let _watcher = watch(&settings.pods, changed)?;
    agent.reconciler.want(&agent.last_good)?;
    let server = status::serve(listener, ask);
    tracing::info!(pods = agent.last_good.pods.len(), "ready");

    let mut next_check = Instant::now() + settings.check_interval;
    loop {
        let retry = agent.reconciler.next_retry().map(Instant::from_std);
        let wake = retry.map_or(next_check, |retry| retry.min(next_check));
        tokio::select! {
            _ = stop.recv() => break,
            _ = interrupt.recv() => break,
            Some(question) = questions.recv() => {
                let _asker_left = question.send(agent.status());
            }
            Some(()) = changes.recv() => agent.reread(&settings.pods)?,
            () = sleep_until(wake) => {
                agent.pass();
                next_check = Instant::now() + settings.check_interval;
            }
        }
    }

    server.abort();
    tracing::info!("stopping: taking programs, maps and links out of the kernel");
    agent.reconciler.remove()?;
    fs::remove_file(&settings.socket)?;
    if let Some(path) = mounted {
        rustix::mount::unmount(&path, rustix::mount::UnmountFlags::empty())
            .with_context(|| format!("unmounting {}", path.display()))?;
    }
    Ok(())
}

struct Agent {
    reconciler: Reconciler<Bpf>,
    last_good: Snapshot,
    errors: Vec<String>,
    repairs: Vec<String>,
    cgroup: PathBuf,
}

impl Agent {
    /// Reads the folder again. A file that cannot be used any more leaves its pods as they were.
    fn reread(&mut self, folder: &Path) -> anyhow::Result<()> {
        let mut snapshot = match source::read(folder) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.errors = vec![error.to_string()];
                return Ok(());
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
        self.reconciler.want(&snapshot)?;
        self.last_good = snapshot;
        Ok(())
    }

    fn pass(&mut self) {
        match self.reconciler.pass() {
            Ok(restored) => {
                for what in restored {
                    tracing::warn!(what, "was lost, and is restored");
                    self.repairs.push(what);
                }
                let excess = self.repairs.len().saturating_sub(REPAIRS);
                self.repairs.drain(..excess);
            }
            Err(error) => tracing::error!(%error, "check failed; trying again"),
        }
    }

    fn status(&self) -> Status {
        Status {
            ready: true,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            cgroup: self.cgroup.clone(),
            pods: self.reconciler.status(),
            errors: self.errors.clone(),
            repairs: self.repairs.clone(),
        }
    }
}

/// At the start a mistake in any file stops the agent, before it has touched anything.
fn refuse_mistakes(snapshot: &Snapshot) -> anyhow::Result<()> {
    let mut mistakes: Vec<String> = snapshot.errors.iter().map(|(_, e)| e.to_string()).collect();
    let mut namespaces = BTreeMap::<u64, &PodName>::new();
    for (name, (path, entry)) in &snapshot.pods {
        let Ok(wanted) = entry else { continue };
        let file = path.display();
        match Namespace::open(&wanted.netns).and_then(|n| n.cookie()) {
            Err(error) => mistakes.push(format!("{file}: pod {name}: {error}")),
            Ok(cookie) => {
                if let Some(other) = namespaces.insert(cookie, name) {
                    mistakes.push(format!(
                        "{file}: pod {name}: its network namespace {} is already that of pod {other}",
                        wanted.netns
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

/// Tells of changes in a folder. One message stands for any number of changes: the folder is read as a whole.
fn watch(folder: &Path, changed: mpsc::Sender<()>) -> anyhow::Result<impl Watcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _one_is_waiting = changed.try_send(());
        }
    })?;
    watcher
        .watch(folder, RecursiveMode::NonRecursive)
        .with_context(|| format!("watching {}", folder.display()))?;
    Ok(watcher)
}
