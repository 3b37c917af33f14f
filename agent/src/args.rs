//! Command line of the agent.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use sidestep_agent_api::SOCKET;
use tokio::runtime::Builder;

use crate::{
    node,
    pods::health::Patience,
    preflight, probe, run,
    shortcut::{Bounds, LIMIT, Reach, selftest},
    uninstall,
};

/// Where it pins what must outlive it, unless told otherwise.
pub const PIN: &str = "/sys/fs/bpf/sidestep";

/// The async side waits for the network and for the kernel, and does no work worth a core.
const THREADS: usize = 2;

/// Sends the connections of pods to their Istio sidecars with eBPF, in place of iptables.
///
/// On a Kubernetes node (--node) it watches the API server for the node's accelerated pods, and finds their network
/// namespaces by itself. When it ends, everything stays in the kernel: running pods do not notice, new ones wait for
/// the next agent.
///
/// Without --node it reads Pod files (as Istio's injector left them) from a folder; each names its network namespace
/// in the annotation `sidestep.dev/netns`. Files may be added, changed and removed while it runs. A clean exit (SIGTERM
/// or SIGINT) takes everything out of the kernel; after a crash the next start takes over what is there, and no
/// connection notices.
#[derive(Debug, Parser)]
#[command(
    version,
    name = "sidestep-agent",
    args_conflicts_with_subcommands = true
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// Name of the Kubernetes node that this is
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node: Option<String>,

    /// Name of the agent's own pod, if it is in one, with --node
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pod: Option<String>,

    /// Folder of Pod files (*.yaml, *.yml, *.json)
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/etc/sidestep/pods",
        conflicts_with = "node"
    )]
    pods: PathBuf,

    /// The cgroup v2 folder that holds the pods' processes; the programs see nothing outside it. On a Kubernetes node it
    /// is found (kubepods or kubepods.slice)
    #[arg(long, value_name = "DIR", required_unless_present = "node")]
    cgroup: Option<PathBuf>,

    /// Folder on a bpffs for what must outlive the agent. Without --node a bpffs is mounted at its parent if there is none
    #[arg(long, value_name = "DIR", default_value = PIN)]
    pin: PathBuf,

    /// Unix socket on which `sidestep status` is answered
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,

    /// Address for probes (/livez, /readyz) and metrics (/metrics), with --node
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8081")]
    admin_listen: SocketAddr,

    /// How long a pod may be without a sandbox before an Event says so, with --node
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    sandbox_patience: Duration,

    /// How long the API server may not answer before the agent is not ready, so that the webhook leaves new pods to Istio,
    /// with --node. Pods that run are not affected
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = parse_seconds)]
    api_patience: Duration,

    /// Let programs of the pod open raw TCP sockets, which go around the proxy (iptables would catch them)
    #[arg(long)]
    allow_raw_sockets: bool,

    /// The farthest that any pod's bytes may go past TCP: not at all, between an application and its own sidecar, or also
    /// between two sidecars on the node, where network policies see no more than the connection's start. A pod's annotation
    /// sidestep.dev/shortcut chooses within this; without one it is "pod". Off takes effect at once, also for open connections
    #[arg(long, value_name = "REACH", default_value = "node", value_parser = reaches())]
    shortcut: Reach,

    /// Most memory that the unread messages of one connection's end may take past TCP, beside TCP's own buffers
    #[arg(long, value_name = "BYTES", default_value_t = LIMIT, value_parser = clap::value_parser!(u32).range(4096..=(16 << 20)))]
    shortcut_limit: u32,

    /// How often links, pins and namespaces are checked, without --node
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = parse_ms)]
    check_interval: Duration,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What an agent starts to see whether its programs act
    #[command(name = probe::COMMAND, hide = true)]
    Probe {
        /// Where to be
        cgroup: PathBuf,
    },
    /// What an agent starts to prove the shortcut
    #[command(name = selftest::WORKER, hide = true)]
    SelfTest,

    /// Mounts a bpffs where an agent will pin, unless there is one; for an init container on nodes that mount none
    MountBpffs {
        /// Folder of the agent's pins; the bpffs is mounted at its parent
        #[arg(long, value_name = "DIR", default_value = PIN)]
        pin: PathBuf,
    },

    /// Takes everything out of the kernel that an agent left, and refuses while a pod depends on it
    Uninstall {
        /// Folder of the agent's pins
        #[arg(long, value_name = "DIR", default_value = PIN)]
        pin: PathBuf,

        /// Unix socket of the agent, to see whether there is one
        #[arg(long, value_name = "PATH", default_value = SOCKET)]
        socket: PathBuf,
    },
}

impl Args {
    /// Runs the agent until it is told to stop.
    pub fn run(self) -> anyhow::Result<()> {
        let Self {
            command,
            node,
            pod,
            pods,
            cgroup,
            pin,
            socket,
            admin_listen,
            sandbox_patience,
            api_patience,
            allow_raw_sockets,
            shortcut,
            shortcut_limit,
            check_interval,
        } = self;
        match command {
            Some(Command::Probe { cgroup }) => return probe::child(&cgroup),
            // Before there is a second thread: it leaves its network namespace.
            Some(Command::SelfTest) => return Ok(selftest::worker::run()?),
            Some(Command::MountBpffs { pin }) => {
                sidestep_runtime::logging::init();
                return Ok(preflight::ensure_bpffs(&pin).map(drop)?);
            }
            Some(Command::Uninstall { pin, socket }) => return Ok(uninstall::run(&pin, &socket)?),
            None => {}
        }
        sidestep_runtime::logging::init();
        preflight::raise_descriptors();
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .enable_all()
            .build()?;
        let strict = !allow_raw_sockets;
        let shortcut = Bounds {
            reach: shortcut,
            limit: shortcut_limit,
        };
        let done = runtime.block_on(async {
            if let Some(node) = node {
                // kube asks rustls for a provider of cryptography, and chooses none. Somebody else's is as good.
                let _installed_already = rustls::crypto::ring::default_provider().install_default();
                return node::run(node::Settings {
                    node,
                    pod,
                    cgroup,
                    pin,
                    socket,
                    admin_listen,
                    sandbox_patience,
                    api_patience: Patience(api_patience),
                    strict,
                    shortcut,
                })
                .await;
            }
            run::run(run::Settings {
                pods,
                cgroup: cgroup.unwrap_or_default(), // the command line wants it
                pin,
                socket,
                strict,
                shortcut,
                check_interval,
            })
            .await
        });
        // What hangs in the kernel must not keep a process that was told to end.
        runtime.shutdown_background();
        done
    }
}

fn reaches() -> impl TypedValueParser<Value = Reach> {
    PossibleValuesParser::new(Reach::WORDS).try_map(|word| word.parse::<Reach>())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("want a number of seconds, at least 1".to_owned()),
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
    }
}

fn parse_ms(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("want a number of milliseconds, at least 1".to_owned()),
        Ok(ms) => Ok(Duration::from_millis(ms)),
    }
}
