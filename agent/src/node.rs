//! The agent's life on a Kubernetes node: programs are attached and stay, pods come from the API server, and the end of the
//! agent ends nothing else. What a running pod depends on is in the kernel; the agent only keeps it so, and lets new pods in.
//!
//! The watch, kernel events and questions arrive on the async side; one thread owns the kernel side and does one thing at a
//! time.

mod attempts;
mod lasting;
mod start;

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    time::Duration,
};

use anyhow::{Context, anyhow};
use kube::{Client, Config};
use sidestep_runtime::{
    Liveness, Readiness, Signals, Tasks,
    admin::{self, Collect},
    cached, listen,
};
use tokio::{
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
};

use self::attempts::Attempts;
use crate::{
    metrics::Metrics,
    pods::{
        connection::{connect, limit},
        health::ApiHealth,
        observed::Change,
        timing::Patience,
        watch,
    },
    report::Reports,
    shortcut::Bounds,
    status,
    worker::Message,
};

/// How long the agent's thread may not go round before it counts as stuck.
const SILENCE: Duration = Duration::from_mins(1);

/// How old metrics may be. Anybody can ask for them, and collecting them takes the agent's thread.
const SCRAPE_AGE: Duration = Duration::from_secs(1);

/// What the command line says.
#[derive(Debug)]
pub struct Settings {
    /// The node's name in the API.
    pub node: String,
    /// The name of the agent's own pod, if it is in one.
    pub pod: Option<String>,
    /// The pods' cgroup, if it need not be looked for.
    pub cgroup: Option<PathBuf>,
    /// Folder on the node's bpffs.
    pub pin: PathBuf,
    /// Status socket.
    pub socket: PathBuf,
    /// Metrics.
    pub admin_listen: SocketAddr,
    /// How long a pod may be without a sandbox before somebody should know.
    pub sandbox_patience: Duration,
    /// How long the API server may be silent before the agent is not ready.
    pub api_patience: Patience,
    /// Refuse raw TCP sockets.
    pub strict: bool,
    /// How far any pod's bytes may go past TCP.
    pub shortcut: Bounds,
}

/// Runs the agent until SIGTERM or SIGINT. Then everything in the kernel that a pod depends on stays as it is.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let readiness = Readiness::default();
    let liveness = Liveness::default();
    let metrics = Metrics::default();
    let (messages, inbox) = channel();
    let socket = settings.socket.clone();

    let mut config = Config::infer()
        .await
        .context("no API server: neither in a pod with a service account, nor with a kubeconfig")?;
    let patience = settings.api_patience.drawn();
    let health = ApiHealth::new(metrics.clone());
    let connection = connect(&config, patience).context("API server")?;
    let watching = health.client(connection, patience);
    limit(&mut config, patience);
    let client = Client::try_from(config).context("API server")?;
    let admin = listen(settings.admin_listen)
        .await
        .with_context(|| format!("listening for scrapes on {}", settings.admin_listen))?;
    let listener = status::bind(&socket)
        .await
        .with_context(|| format!("status socket {}", socket.display()))?;
    let address = admin.local_addr()?;
    let mut tasks = Tasks::default();
    let (collect, keep) = cached(collect(&metrics, &readiness, &messages), SCRAPE_AGE);
    tasks.spawn("collection of metrics", keep);
    tasks.spawn("metrics", admin::serve(admin, admin::scrapes(collect)));
    let questions = messages.clone();
    let hand = Arc::new(move |question| {
        let _the_agent_ended = questions.send(Message::Ask(question));
    });
    let probes = admin::probes(liveness.clone(), readiness.clone());
    tasks.spawn("status and probes", status::serve(listener, hand, probes));
    let (reports, reporting) = Reports::start(client, settings.pod.clone(), metrics.clone());
    tasks.spawn("Events", reporting);
    let changes = messages.clone();
    let failing = health.clone();
    let watching = watch::follow(
        watching,
        watch::accelerated_on(&settings.node),
        move |error| failing.failed(error),
        move |change| {
            let _the_agent_ended = changes.send(Message::Pods(change));
        },
    );
    tasks.spawn("watch of pods", watching);
    let answers_in_time = readiness.condition("api", "not looked at yet");
    tasks.spawn("API server", health.attend(patience, answers_in_time));
    tracing::info!(node = settings.node, %address, "watching this node's pods");

    let heartbeat = liveness.heartbeat("the agent's thread", SILENCE);
    let attempts = Attempts::new(
        settings,
        readiness,
        heartbeat,
        metrics,
        reports,
        messages.clone(),
    );
    let mut thread = spawn_blocking(move || attempts.work(&inbox));
    let mut done = until_told(&mut thread, &mut tasks, signals.stop()).await;
    if !thread.is_finished() {
        tracing::info!("stopping");
        let _already_ended = messages.send(Message::Stop);
        tokio::select! {
            ended = thread => done = done.and(ended.map_err(|error| anyhow!("the agent's thread: {error}"))),
            () = signals.stop() => tracing::warn!("stopped again while draining; exiting at once"),
        }
    }
    tasks.shutdown().await;
    let _already_gone = fs::remove_file(&socket);
    done
}

/// Waits for the agent to be told to end. A thread or a task that ends by itself is an error: an agent without it would look
/// well, and not do all of its work.
async fn until_told(
    thread: &mut JoinHandle<()>,
    tasks: &mut Tasks,
    told: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    tokio::select! {
        () = told => Ok(()),
        ended = tasks.ended() => Err(ended.into()),
        ended = thread => Err(match ended {
            Ok(()) => anyhow!("the agent's thread ended by itself"),
            Err(error) => anyhow!("the agent's thread: {error}"),
        }),
    }
}

/// Pods are counted by the thread that knows them.
fn collect(
    metrics: &Metrics,
    readiness: &Readiness,
    messages: &Sender<Message<Change>>,
) -> Collect {
    let (metrics, readiness) = (metrics.clone(), readiness.clone());
    let messages = messages.clone();
    Arc::new(move || {
        let (metrics, readiness) = (metrics.clone(), readiness.clone());
        let (reply, answer) = oneshot::channel();
        let _the_agent_ended = messages.send(Message::Count(reply));
        Box::pin(async move { metrics.text(&readiness, &answer.await.unwrap_or_default()) })
    })
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn an_agent_whose_thread_panics_ends_with_an_error() {
        let mut thread = spawn_blocking(|| panic!("a bug"));
        let error = until_told(&mut thread, &mut Tasks::default(), pending())
            .await
            .expect_err("an end");
        assert!(error.to_string().contains("panicked"), "{error}");
    }

    #[tokio::test]
    async fn an_agent_whose_thread_ends_by_itself_ends_with_an_error() {
        let mut thread = spawn_blocking(|| ());
        assert!(
            until_told(&mut thread, &mut Tasks::default(), pending())
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn an_agent_whose_watch_ends_by_itself_ends_with_an_error() {
        let (end, wait) = channel::<()>();
        let mut thread = spawn_blocking(move || {
            let _until_dropped = wait.recv();
        });
        let mut tasks = Tasks::default();
        tasks.spawn("watch of pods", async {});
        let error = until_told(&mut thread, &mut tasks, pending())
            .await
            .expect_err("an end");
        assert!(error.to_string().contains("watch of pods"), "{error}");
        drop(end);
    }

    #[tokio::test]
    async fn an_agent_that_is_told_to_end_waits_for_nothing() {
        let (end, wait) = channel::<()>();
        let mut thread = spawn_blocking(move || {
            let _until_dropped = wait.recv();
        });
        assert!(
            until_told(&mut thread, &mut Tasks::default(), ready(()))
                .await
                .is_ok()
        );
        drop(end);
    }
}
