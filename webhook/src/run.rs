//! The server's life: read, listen, serve until told to stop, drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::metrics::Metrics;
use crate::server::admin::{self, NotReady};
use crate::server::listen::{Phase, Server, bind};
use crate::server::{App, Limits};
use crate::settings::Settings;
use crate::tls::{Certificate, Files};
use crate::world::{Agents, World, follow};

/// Between looks at the certificate's files.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(5);

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    /// Reviews.
    pub listen: SocketAddr,
    /// Probes and metrics.
    pub admin_listen: SocketAddr,
    /// Certificate and key.
    pub tls: Files,
    /// What is decided where nobody says otherwise.
    pub settings: Settings,
    /// How agents are found; without, no API server is asked.
    pub agents: Option<Agents>,
    /// What the server may use.
    pub limits: Limits,
    /// From SIGTERM until no request is taken any more.
    pub shutdown_delay: Duration,
    /// From then until the last answer.
    pub drain_timeout: Duration,
}

/// Serves until SIGTERM or SIGINT, and until what is on its way is answered.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let certificate = Certificate::read(options.tls)?;
    let metrics = Arc::new(Metrics::default());
    let (world, mut tasks, synced) = world(options.agents).await?;
    let (phase, phases) = watch::channel(Phase::Serve);

    let server = Server {
        router: Arc::new(App::new(
            options.settings,
            world,
            Arc::clone(&metrics),
            options.limits,
        ))
        .router(),
        tls: Arc::new(certificate.server_config()?),
        limits: options.limits,
        metrics: Arc::clone(&metrics),
        phase: phases.clone(),
    };
    let listening = |what| move || format!("listening for {what}");
    let (listener, address) = bind(options.listen)
        .await
        .with_context(listening("reviews"))?;
    let (admin, admin_address) = bind(options.admin_listen)
        .await
        .with_context(listening("probes"))?;
    let not_ready: NotReady = Arc::new(move || match *phases.borrow() {
        Phase::Leave | Phase::Stop => Some("stopping"),
        Phase::Serve if !synced() => Some("the cluster's state is not known yet"),
        Phase::Serve => None,
    });
    let admin_router = admin::router(metrics, not_ready);
    tasks.spawn(async move {
        if let Err(error) = axum::serve(admin, admin_router).await {
            tracing::error!(%error, "probes and metrics are no longer served");
        }
    });
    tasks.spawn(certificate.keep_fresh(CERTIFICATE_INTERVAL));
    tracing::info!(%address, %admin_address, "listening");

    let mut serving = tokio::spawn(server.run(listener, options.drain_timeout));
    tokio::select! {
        _ = stop.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut serving => return ended.context("the server ended"),
    }
    tracing::info!("stopping");
    phase.send_replace(Phase::Leave);
    let drained = async {
        sleep(options.shutdown_delay).await;
        phase.send_replace(Phase::Stop);
        serving.await
    };
    tokio::select! {
        ended = drained => ended.context("the server ended")?,
        _ = stop.recv() => tracing::warn!("stopped at once"),
        _ = interrupt.recv() => tracing::warn!("stopped at once"),
    }
    tasks.shutdown().await;
    Ok(())
}

type Synced = Box<dyn Fn() -> bool + Send + Sync>;

async fn world(agents: Option<Agents>) -> anyhow::Result<(Arc<World>, JoinSet<()>, Synced)> {
    let Some(agents) = agents else {
        return Ok((
            Arc::new(World::assumed()),
            JoinSet::new(),
            Box::new(|| true),
        ));
    };
    let client = Client::try_default()
        .await
        .context("no API server (--no-cluster does without)")?;
    let world = Arc::new(World::unknown(Some(client.clone())));
    let (tasks, missing) = follow(&client, &agents, &world);
    let synced = move || missing.load(Ordering::Acquire) == 0;
    Ok((world, tasks, Box::new(synced)))
}
