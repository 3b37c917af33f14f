//! What goes on beside answering: the certificate, what is known of the cluster, and what the leader does for all.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::Client;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::{Cluster, Tls};
use crate::leader::{self, Known, Trouble};
use crate::metrics::Metrics;
use crate::server::listen::Phase;
use crate::tls::{Certificate, Files};
use crate::world::{World, follow};

/// Between looks at the certificate's files.
const INTERVAL: Duration = Duration::from_secs(5);

/// Why reviews cannot be answered yet, or nothing.
pub(super) type Obstacle = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// What goes on.
pub(super) struct Background {
    /// What is served.
    pub(super) certificate: Arc<Certificate>,
    /// What is known of the cluster.
    pub(super) world: Arc<World>,
    /// All of it, until it is dropped.
    pub(super) tasks: JoinSet<()>,
    /// Ends by itself, after letting go of the lease.
    pub(super) election: Option<JoinHandle<()>>,
    /// Why reviews cannot be answered yet.
    pub(super) obstacle: Obstacle,
}

pub(super) async fn start(
    tls: Tls,
    cluster: Option<Cluster>,
    phases: watch::Receiver<Phase>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Background> {
    let certificate = Arc::new(Certificate::shown_in(Arc::clone(metrics)));
    let mut tasks = JoinSet::new();
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
            obstacle: Box::new(|| None),
        });
    };
    let client = Client::try_default()
        .await
        .context("no API server (--no-cluster does without)")?;
    let world = Arc::new(World::unknown(Some(client.clone())));
    let missing = follow(&client, &agents, &world, &mut tasks);

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
    let obstacle = move || {
        if !served.is_there() {
            return Some(no_certificate(trouble.as_ref()));
        }
        let is_known = missing.load(Ordering::Acquire) == 0;
        (!is_known).then(|| "the cluster's state is not known yet".to_owned())
    };
    Ok(Background {
        certificate,
        world,
        tasks,
        election: Some(election),
        obstacle: Box::new(obstacle),
    })
}

fn keep_fresh(
    files: Files,
    certificate: &Arc<Certificate>,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    files.refresh(certificate)?;
    tasks.spawn(files.keep_fresh(Arc::clone(certificate), INTERVAL));
    Ok(())
}

async fn stopping(mut phases: watch::Receiver<Phase>) {
    // An error is an end, too.
    let _leaves = phases.wait_for(|phase| *phase != Phase::Serve).await;
}

fn no_certificate(trouble: Option<&Trouble>) -> String {
    match trouble.and_then(|trouble| trouble.borrow().clone()) {
        Some(why) => format!("no certificate yet: {why}"),
        None => "no certificate yet: the replica that holds the lease makes it".to_owned(),
    }
}
