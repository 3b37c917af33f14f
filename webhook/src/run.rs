//! The server's life: read, listen, serve until told to stop, drain.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use sidestep_runtime::admin::{self, Collect};
use sidestep_runtime::{Liveness, Readiness, Signals};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::leader::{Duties, Seat};
use crate::metrics::Metrics;
use crate::server::listen::{Phase, Server, bind};
use crate::server::{App, Limits};
use crate::settings::Settings;
use crate::tls::{Files, Managed};
use crate::world::{Agents, World};

mod background;

use background::Background;

/// How long the server may go without a look at its listening socket before it counts as stuck.
const SILENCE: Duration = Duration::from_mins(1);

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    /// Reviews.
    pub listen: SocketAddr,
    /// Probes and metrics.
    pub admin_listen: SocketAddr,
    /// Where the certificate comes from.
    pub tls: Tls,
    /// What is decided where nobody says otherwise.
    pub settings: Settings,
    /// What the API server is asked and told; without, there is none.
    pub cluster: Option<Cluster>,
    /// What the server may use.
    pub limits: Limits,
    /// From SIGTERM until no request is taken any more.
    pub shutdown_delay: Duration,
    /// From then until the last answer.
    pub drain_timeout: Duration,
}

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Tls {
    /// Somebody else makes it.
    Files(Files),
    /// We do.
    Managed(Managed),
}

/// What the API server is asked and told.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// How agents are found.
    pub agents: Agents,
    /// Who leads.
    pub seat: Seat,
    /// What the leader does.
    pub duties: Duties,
}

/// Serves until SIGTERM or SIGINT, and until what is on its way is answered.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let readiness = Readiness::default();
    let liveness = Liveness::default();
    let metrics = Arc::new(Metrics::default());
    let (phase, phases) = watch::channel(Phase::Serve);
    let Background {
        certificate,
        world,
        mut tasks,
        election,
    } = background::start(
        options.tls,
        options.cluster,
        phases.clone(),
        &readiness,
        &metrics,
    )
    .await?;

    let server = Server {
        router: Arc::new(App::new(
            options.settings,
            Arc::clone(&world),
            Arc::clone(&metrics),
            options.limits,
        ))
        .router(),
        tls: Arc::new(certificate.server_config()?),
        limits: options.limits,
        metrics: Arc::clone(&metrics),
        phase: phases,
    };
    let listening = |what| move || format!("listening for {what}");
    let (listener, address) = bind(options.listen)
        .await
        .with_context(listening("reviews"))?;
    let (admin, admin_address) = bind(options.admin_listen)
        .await
        .with_context(listening("probes"))?;
    let heartbeat = liveness.heartbeat("accepting connections", SILENCE);
    let router = admin::router(
        liveness,
        readiness.clone(),
        collect(metrics, readiness.clone(), world),
    );
    tasks.spawn("probes and metrics", admin::serve(admin, router));
    tracing::info!(%address, %admin_address, "listening");

    let mut serving = tokio::spawn(server.run(listener, options.drain_timeout, heartbeat));
    // A replica without one of them would look well, and not do all of its work.
    let told = tokio::select! {
        () = signals.stop() => Ok(()),
        ended = tasks.ended() => Err(ended),
        ended = &mut serving => bail!("the server ended by itself: {ended:?}"),
    };
    if let Err(error) = &told {
        tracing::error!(%error, "a background task ended unexpectedly; draining, then exiting");
    }
    tracing::info!("stopping");
    let _for_good = readiness.condition("server", "stopping");
    phase.send_replace(Phase::Leave);
    let drained = async {
        sleep(options.shutdown_delay).await;
        phase.send_replace(Phase::Stop);
        let ended = serving.await;
        if let Some(election) = election {
            let _let_go = election.await;
        }
        ended
    };
    tokio::select! {
        ended = drained => ended.context("the server ended")?,
        () = signals.stop() => tracing::warn!("stopped again while draining; exiting at once"),
    }
    tasks.shutdown().await;
    Ok(told?)
}

fn collect(metrics: Arc<Metrics>, readiness: Readiness, world: Arc<World>) -> Collect {
    Arc::new(move || Box::pin(ready(metrics.text(&readiness, world.cluster().share()))))
}
