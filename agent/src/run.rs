//! The agent's life: check, establish, reconcile until told to stop, take everything away.
//!
//! Signals and questions arrive on the async side; one thread owns the kernel side and does one thing at a time.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use axum::Router;
use notify::{RecursiveMode, Watcher};
use sidestep_kernel::netns::{Namespace, NetnsError};
use sidestep_runtime::Readiness;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::spawn_blocking,
};

use crate::{
    cgroup::sweep,
    dataplane::Bpf,
    pods::{
        Source,
        folder::{self, Folder, Snapshot},
        wanted::{Place, PodName},
    },
    preflight::{self, PinFolder},
    reconcile::{Mode, Reconciler},
    sandbox::Named,
    shortcut::{self, Bounds},
    status,
    worker::{Message, Worker},
};

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

/// Runs the agent until SIGTERM or SIGINT.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    // Everything that can be wrong is found before anything is changed.
    let offsets = preflight::check(&settings.cgroup)?;
    let _alone = preflight::lock(&settings.cgroup)?;
    let pins = PinFolder::lock(&settings.pin)?;
    let (events, inbox) = channel();
    // Before the first look, so that nothing falls between the two.
    let watcher = watch(&settings.pods, events.clone());
    let first = folder::read(&settings.pods)
        .with_context(|| "the folder of Pod files (--pods) cannot be read")?;
    let _watcher = watcher?;
    refuse_mistakes(&first, Bpf::is_pinned(&settings.pin))?;
    let source = Folder::new(settings.pods.clone(), first);
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
        let mut dataplane = Bpf::establish(pins, &settings.cgroup, offsets)?;
        dataplane.take_shortcut(proof.establish(&settings.pin));
        let mode = Mode::standalone(settings.strict);
        let mut reconciler = Reconciler::new(dataplane, Named, mode, Box::new(|_, _| {}));
        reconciler.want(source.entries())?;
        let readiness = Readiness::default();
        let programs = readiness.condition("programs", "not looked at yet");
        programs.met();
        tracing::info!(pods = source.entries().count(), "ready");
        let _nobody_waits = ready.send(());
        let mut worker = Worker {
            reconciler,
            source,
            node: None,
            cgroup: settings.cgroup,
            interval: settings.check_interval,
            readiness,
            programs,
            duties: None,
            repairs: Vec::new(),
        };
        worker.work(&inbox);
        tracing::info!("stopping: taking programs, maps and links out of the kernel");
        Ok(worker.reconciler.remove()?)
    });
    // Questions are answered once there is somebody who knows.
    let server = match established.await {
        Ok(()) => {
            let events = events.clone();
            let hand = move |question| {
                let _the_agent_ended = events.send(Message::Ask(question));
            };
            Some(tokio::spawn(status::serve(
                listener,
                Arc::new(hand),
                Router::new(),
            )))
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
        let _already_ended = events.send(Message::Stop);
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
fn watch(folder: &Path, events: Sender<Message<()>>) -> anyhow::Result<impl Watcher + use<>> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            let _the_agent_ended = events.send(Message::Pods(()));
        }
    })?;
    watcher
        .watch(folder, RecursiveMode::NonRecursive)
        .with_context(|| format!("watching {}", folder.display()))?;
    Ok(watcher)
}
