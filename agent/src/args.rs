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
    pods::timing::Patience,
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
/// On a Kubernetes node (--node) the agent watches the API server for the node's accelerated pods and finds their network
/// namespaces. When the agent ends, its programs stay in the kernel: running pods do not notice, and new pods wait for the
/// next agent.
///
/// Without --node the agent reads Pod files (as Istio's injector left them) from a folder. Each file names its network
/// namespace in the annotation `sidestep.dev/netns`. Files may be added, changed and removed while the agent runs. On SIGTERM
/// or SIGINT the agent removes everything from the kernel. After a crash the next agent takes over what is there, and no
/// connection notices.
#[derive(Debug, Parser)]
#[command(
    version,
    name = "sidestep-agent",
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  sidestep-agent --cgroup /sys/fs/cgroup/pods --pods /etc/sidestep/pods   # pods from files
  sidestep-agent --node worker-1                                          # a Kubernetes node, as the chart runs it"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// Name of this Kubernetes node
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

    /// The cgroup v2 folder that holds the pods' processes; programs outside of it are not affected. On a Kubernetes node the
    /// agent finds it (kubepods or kubepods.slice)
    #[arg(long, value_name = "DIR", required_unless_present = "node")]
    cgroup: Option<PathBuf>,

    /// Folder on a bpffs for what must outlive the agent. Without --node the agent mounts a bpffs at its parent if there is none
    #[arg(long, value_name = "DIR", default_value = PIN)]
    pin: PathBuf,

    /// Unix socket on which the agent answers `sidestep status` and, with --node, kubelet's probes (`sidestep probe`)
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,

    /// Address for /metrics, with --node
    #[arg(long, value_name = "ADDRESS", default_value = "[::]:8081")]
    admin_listen: SocketAddr,

    /// How long a pod may have no sandbox before the agent writes an Event, with --node
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    sandbox_patience: Duration,

    /// How long the API server may be unreachable before the agent becomes not ready, with --node: each agent waits up to half
    /// as long again, so that not all of a cluster do so at once. The webhook then leaves new pods to Istio; running pods are
    /// not affected
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = parse_seconds)]
    api_patience: Duration,

    /// Let a pod's programs open raw TCP sockets, which bypass the proxy (iptables would catch them)
    #[arg(long)]
    allow_raw_sockets: bool,

    /// The farthest reach of the shortcut that any pod may have: off, pod (between an application and its own sidecar),
    /// namespace (also between two sidecars on the node whose pods are of one Kubernetes namespace) or node (also between any
    /// two sidecars on the node). Between two sidecars, network policies see only the start of a connection. A pod's annotation
    /// sidestep.dev/shortcut, which the webhook writes, chooses within this limit; a pod without one has "pod". Off takes
    /// effect at once, also for open connections
    #[arg(long, value_name = "REACH", default_value = "node", value_parser = reaches())]
    shortcut: Reach,

    /// Limit of memory for unread messages of the shortcut, for each end of a connection, in addition to TCP's own buffers
    #[arg(long, value_name = "BYTES", default_value_t = LIMIT, value_parser = clap::value_parser!(u32).range(4096..=(16 << 20)))]
    shortcut_limit: u32,

    /// How often the agent checks links, pins and namespaces, without --node
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = parse_ms)]
    check_interval: Duration,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Internal: the child process whose connections show whether the programs act
    #[command(name = probe::COMMAND, hide = true)]
    Probe {
        /// The cgroup to join
        cgroup: PathBuf,
    },
    /// Internal: the child process that runs the shortcut's self-test
    #[command(name = selftest::WORKER, hide = true)]
    SelfTest,

    /// Mount a bpffs where the agent will pin, unless there is one; for an init container on nodes that mount none
    MountBpffs {
        /// Folder of the agent's pins; the bpffs is mounted at its parent
        #[arg(long, value_name = "DIR", default_value = PIN)]
        pin: PathBuf,
    },

    /// Remove from the kernel everything that an agent left; refuses while a pod depends on it
    Uninstall {
        /// Folder of the agent's pins
        #[arg(long, value_name = "DIR", default_value = PIN)]
        pin: PathBuf,

        /// Unix socket of the agent, to check whether one is running
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
