//! Command line of the admission server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::run::{self, Options};
use crate::server::Limits;
use crate::settings::{Enrolment, Reach, Settings};
use crate::tls::Files;
use crate::world::Agents;

/// Turns the istio-init container of new pods into a gate, which opens once the node's agent has programmed the pod.
///
/// Answers the API server's admission reviews on /mutate and /validate. Whatever goes wrong, a pod keeps what Istio gave
/// it. SIGTERM ends it when the requests on their way are answered; a second one at once.
#[derive(Debug, Parser)]
#[command(version, name = "sidestep-webhook")]
pub struct Args {
    /// Where reviews are answered, over TLS
    #[arg(long, value_name = "ADDR", default_value = "[::]:8443")]
    listen: SocketAddr,

    /// Where probes and metrics are answered, in plain HTTP
    #[arg(long, value_name = "ADDR", default_value = "[::]:8080")]
    admin_listen: SocketAddr,

    /// Certificate, as PEM; read again when it changes
    #[arg(long, value_name = "FILE", default_value = "/etc/sidestep/tls/tls.crt")]
    tls_certificate: PathBuf,

    /// Its private key, as PEM
    #[arg(long, value_name = "FILE", default_value = "/etc/sidestep/tls/tls.key")]
    tls_key: PathBuf,

    /// Whether pods are accelerated unless they refuse (opt-out) or only if they ask (opt-in)
    #[arg(long, value_name = "WHICH", default_value = "opt-out")]
    enrolment: Enrolment,

    /// How far the shortcut reaches where neither pod nor namespace says: off, pod or node
    #[arg(long, value_name = "REACH", default_value = "pod")]
    shortcut: Reach,

    /// How long a gate waits for its node's agent, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    probe_timeout: u64,

    /// Keep pods off nodes labelled as unable to run Sidestep
    #[arg(long)]
    avoid_unsupported_nodes: bool,

    /// Namespace of the agents' pods
    #[arg(
        long,
        value_name = "NAME",
        default_value = "sidestep-system",
        env = "POD_NAMESPACE"
    )]
    agent_namespace: String,

    /// Labels of the agents' pods, as a selector
    #[arg(
        long,
        value_name = "SELECTOR",
        default_value = "app.kubernetes.io/name=sidestep-agent"
    )]
    agent_selector: String,

    /// Ask no API server: decide as if every node ran an agent and no namespace said anything
    #[arg(long)]
    no_cluster: bool,

    /// How long it goes on serving after SIGTERM, in seconds, until nobody sends to it any more
    #[arg(long, value_name = "SECONDS", default_value = "5")]
    shutdown_delay: u64,

    /// How long it then waits for the last answers, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "15")]
    drain_timeout: u64,
}

impl Args {
    /// Serves until told to stop.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self {
            listen,
            admin_listen,
            tls_certificate,
            tls_key,
            enrolment,
            shortcut,
            probe_timeout,
            avoid_unsupported_nodes,
            agent_namespace,
            agent_selector,
            no_cluster,
            shutdown_delay,
            drain_timeout,
        } = self;
        run::run(Options {
            listen,
            admin_listen,
            tls: Files {
                certificate: tls_certificate,
                key: tls_key,
            },
            settings: Settings {
                enrolment,
                reach: shortcut,
                probe_timeout: Duration::from_secs(probe_timeout),
                avoid_unsupported: avoid_unsupported_nodes,
            },
            agents: (!no_cluster).then_some(Agents {
                namespace: agent_namespace,
                selector: agent_selector,
            }),
            limits: Limits::default(),
            shutdown_delay: Duration::from_secs(shutdown_delay),
            drain_timeout: Duration::from_secs(drain_timeout),
        })
        .await
    }
}
