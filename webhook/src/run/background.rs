//! What goes on beside answering: the certificate, what is known of the cluster, and what the leader does for all.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::{Client, Config};
use sidestep_runtime::{Readiness, Tasks};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Cluster, Tls};
use crate::leader::{self, Known, Trouble};
use crate::metrics::Metrics;
use crate::server::listen::Phase;
use crate::tls::{Certificate, Files};
use crate::world::{World, follow};

/// Between looks at the certificate's files.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long the API server may leave a request without a byte of its answer. It ends a watch on which nothing happens after
/// 290 seconds, as asked, so a connection that is silent for longer is dead.
const SILENCE: Duration = Duration::from_secs(295);

/// What goes on.
pub(super) struct Background {
    /// What is served.
    pub(super) certificate: Arc<Certificate>,
    /// What is known of the cluster.
    pub(super) world: Arc<World>,
    /// All of it, until it is dropped.
    pub(super) tasks: Tasks,
    /// Ends by itself, after letting go of the lease.
    pub(super) election: Option<JoinHandle<()>>,
}

pub(super) async fn start(
    tls: Tls,
    cluster: Option<Cluster>,
    phases: watch::Receiver<Phase>,
    readiness: &Readiness,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Background> {
    let certificate = Arc::new(Certificate::shown_in(Arc::clone(metrics)));
    let mut tasks = Tasks::default();
    let managed = match tls {
        Tls::Managed(managed) => Some(managed),
        Tls::Files(files) => {
            keep_fresh(files, &certificate, &mut tasks)?;
            None
        }
    };
    let Some(Cluster {
        agents,
        seat,
        duties,
    }) = cluster
    else {
        if managed.is_some() {
            bail!(
                "--certificates managed needs an API server: without one, use --certificates files"
            );
        }
        return Ok(Background {
            certificate,
            world: Arc::new(World::assumed()),
            tasks,
            election: None,
        });
    };
    let no_api_server = "no API server (--no-cluster does without)";
    let mut config = Config::infer().await.context(no_api_server)?;
    config.read_timeout = Some(SILENCE);
    let client = Client::try_from(config).context(no_api_server)?;
    let world = Arc::new(World::unknown(Some(client.clone())));
    let missing = follow(&client, &agents, &world, metrics, &mut tasks);

    let (leads, leading) = watch::channel(false);
    let trouble = managed.map(|managed| {
        let certificate = Arc::clone(&certificate);
        leader::keep_certificates(&client, managed, certificate, leading.clone(), &mut tasks)
    });
    leader::serve(
        &client,
        duties,
        Known {
            world: Arc::clone(&world),
            missing: Arc::clone(&missing),
            agents,
        },
        (&leading, seat.identity.clone()),
        metrics,
        &mut tasks,
    );
    let election = tokio::spawn(leader::campaign(client, seat, leads, stopping(phases)));
    let served = Arc::clone(&certificate);
    readiness.ask("certificate", move || {
        (!served.is_there()).then(|| no_certificate(trouble.as_ref()))
    });
    readiness.ask("cluster", move || {
        let is_known = missing.load(Ordering::Acquire) == 0;
        (!is_known).then(|| "its state is not known yet".to_owned())
    });
    Ok(Background {
        certificate,
        world,
        tasks,
        election: Some(election),
    })
}

fn keep_fresh(
    files: Files,
    certificate: &Arc<Certificate>,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    files.refresh(certificate)?;
    let fresh = files.keep_fresh(Arc::clone(certificate), INTERVAL);
    tasks.spawn("reading the certificate's files", fresh);
    Ok(())
}

async fn stopping(mut phases: watch::Receiver<Phase>) {
    // An error is an end, too.
    let _leaves = phases.wait_for(|phase| *phase != Phase::Serve).await;
}

fn no_certificate(trouble: Option<&Trouble>) -> String {
    match trouble.and_then(|trouble| trouble.borrow().clone()) {
        Some(why) => format!("none yet: {why}"),
        None => "none yet: the replica that holds the lease makes it".to_owned(),
    }
}
