//! Command line of the admission server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use sidestep_certs::Lifetimes;
use sidestep_certs::kube_store::Names;

use crate::leader::{Duties, Patience, Seat};
use crate::run::{self, Cluster, Options, Tls};
use crate::server::Limits;
use crate::settings::{Enrolment, IstioCni, READY_PERCENT, Reach, Settings};
use crate::tls::{Files, Managed};
use crate::world::Agents;

/// Turns the istio-init container of new pods into a gate, which opens when the node's agent has armed the pod.
///
/// Answers the API server's admission reviews on /mutate. If anything fails, a pod keeps what Istio gave it. On SIGTERM the
/// webhook answers the requests it has and then exits; on a second SIGTERM it exits at once.
#[derive(Debug, Parser)]
#[command(
    version,
    name = "sidestep-webhook",
    after_help = "Examples:
  sidestep-webhook --certificates managed --namespace sidestep-system   # as the chart runs it
  sidestep-webhook --no-cluster --tls-certificate tls.crt --tls-key tls.key   # to try it by hand"
)]
pub struct Args {
    /// Address on which the webhook answers reviews, over TLS
    #[arg(long, value_name = "ADDR", default_value = "[::]:8443")]
    listen: SocketAddr,

    /// Address for probes (/livez, /readyz) and metrics (/metrics), in plain HTTP
    #[arg(long, value_name = "ADDR", default_value = "[::]:8080")]
    admin_listen: SocketAddr,

    /// Source of the certificate: files that another program writes, or a Secret that the webhook creates and rotates
    #[arg(long, value_name = "FROM", value_enum, default_value_t = Certificates::Files)]
    certificates: Certificates,

    /// With files: the certificate, as PEM; the webhook reads it again when it changes
    #[arg(long, value_name = "FILE", default_value = "/etc/sidestep/tls/tls.crt")]
    tls_certificate: PathBuf,

    /// With files: its private key, as PEM
    #[arg(long, value_name = "FILE", default_value = "/etc/sidestep/tls/tls.key")]
    tls_key: PathBuf,

    /// With managed: the Secret. The webhook creates it if it is missing, and writes it only if it has the label sidestep.dev/certificates=managed
    #[arg(long, value_name = "NAME", default_value = "sidestep-webhook-tls")]
    tls_secret: String,

    /// With managed: the Service by which API servers reach the webhook
    #[arg(long, value_name = "NAME", default_value = "sidestep-webhook")]
    service: String,

    /// With managed: the MutatingWebhookConfiguration whose caBundle the webhook writes
    #[arg(long, value_name = "NAME", default_value = "sidestep-webhook")]
    webhook_configuration: String,

    /// With managed: lifetime of a certificate, in seconds (default: 90 days); its CA lives ten times as long
    #[arg(long, value_name = "SECONDS", default_value = "7776000", value_parser = clap::value_parser!(u64).range(60..=315_360_000))]
    certificate_lifetime: u64,

    /// The Lease by which the replicas choose their leader
    #[arg(long, value_name = "NAME", default_value = "sidestep-webhook")]
    lease: String,

    /// Namespace of the webhook's Secret, Service and Lease
    #[arg(
        long,
        value_name = "NAME",
        default_value = "sidestep-system",
        env = "POD_NAMESPACE"
    )]
    namespace: String,

    /// This replica's name in the Lease
    #[arg(
        long,
        value_name = "NAME",
        default_value = "sidestep-webhook",
        env = "POD_NAME"
    )]
    name: String,

    /// opt-out accelerates every injected pod that does not refuse; opt-in only those that ask
    #[arg(long, value_name = "WHICH", default_value = "opt-out")]
    enrolment: Enrolment,

    /// Pods of istio-cni to accelerate: all, those whose istio-validation is their first init container (gate-first), or none
    #[arg(long, value_name = "WHICH", default_value = "all")]
    istio_cni: IstioCni,

    /// Reach of the shortcut where neither pod nor namespace sets one: off, pod, namespace or node
    #[arg(long, value_name = "REACH", default_value = "namespace")]
    shortcut: Reach,

    /// Time that a gate waits for its node's agent, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    probe_timeout: u64,

    /// Keep accelerated pods off nodes that are labelled sidestep.dev/unsupported or sidestep.dev/without-agent
    #[arg(long)]
    avoid_unsupported_nodes: bool,

    /// Label nodes that cannot run Sidestep (sidestep.dev/unsupported=REASON), and remove the label when they can
    #[arg(long)]
    label_unsupported_nodes: bool,

    /// Label nodes whose agent has not been ready for this many minutes (sidestep.dev/without-agent=REASON), at once where it
    /// says that it never will be, and remove the label when it is; 0: never
    #[arg(long, value_name = "MINUTES", default_value = "0", value_parser = clap::value_parser!(u64).range(0..=1440))]
    label_without_agent: u64,

    /// Gate a pod that may run on several nodes only while at least this percentage of the nodes that should have a ready agent
    /// have one
    #[arg(long, value_name = "PERCENT", default_value_t = READY_PERCENT, value_parser = clap::value_parser!(u8).range(0..=100))]
    ready_percent: u8,

    /// Write an Event for a pod whose gate has waited this many seconds on a node without a ready agent; 0: never
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    waiting_report: u64,

    /// Delete such a pod after this many seconds, if a controller will replace it (never a Job's); 0: never
    #[arg(long, value_name = "SECONDS", default_value = "0")]
    waiting_delete: u64,

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

    /// Do not use an API server: decide as if every node ran an agent and no namespace had labels
    #[arg(long)]
    no_cluster: bool,

    /// Time that the webhook continues to serve after SIGTERM, in seconds, until API servers have stopped sending to it
    #[arg(long, value_name = "SECONDS", default_value = "5")]
    shutdown_delay: u64,

    /// Time that the webhook then waits for its last answers, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "15")]
    drain_timeout: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Certificates {
    Files,
    Managed,
}

impl Args {
    /// Serves until SIGTERM.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self {
            listen,
            admin_listen,
            certificates,
            tls_certificate,
            tls_key,
            tls_secret,
            service,
            webhook_configuration,
            certificate_lifetime,
            lease,
            namespace,
            name,
            enrolment,
            istio_cni,
            shortcut,
            probe_timeout,
            avoid_unsupported_nodes,
            label_unsupported_nodes,
            label_without_agent,
            ready_percent,
            waiting_report,
            waiting_delete,
            agent_namespace,
            agent_selector,
            no_cluster,
            shutdown_delay,
            drain_timeout,
        } = self;
        let tls = match certificates {
            Certificates::Files => Tls::Files(Files {
                certificate: tls_certificate,
                key: tls_key,
            }),
            Certificates::Managed => Tls::Managed(Managed {
                names: Names {
                    namespace: namespace.clone(),
                    secret: tls_secret,
                    service,
                    configuration: webhook_configuration,
                },
                lifetimes: Lifetimes::new(Duration::from_secs(certificate_lifetime)),
            }),
        };
        let cluster = Cluster {
            agents: Agents {
                namespace: agent_namespace,
                selector: agent_selector,
            },
            seat: Seat::new(namespace, lease, &name),
            duties: Duties {
                label_nodes: label_unsupported_nodes,
                without_agent: unless_never(label_without_agent * 60),
                patience: Patience {
                    report: unless_never(waiting_report),
                    delete: unless_never(waiting_delete),
                },
            },
        };
        run::run(Options {
            listen,
            admin_listen,
            tls,
            settings: Settings {
                enrolment,
                istio_cni,
                reach: shortcut,
                probe_timeout: Duration::from_secs(probe_timeout),
                avoid_unsupported: avoid_unsupported_nodes,
                ready_percent,
            },
            cluster: (!no_cluster).then_some(cluster),
            limits: Limits::default(),
            shutdown_delay: Duration::from_secs(shutdown_delay),
            drain_timeout: Duration::from_secs(drain_timeout),
        })
        .await
    }
}

fn unless_never(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}
