//! Command line of the agent.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

use crate::run::{self, Settings};

/// Where the agent answers `sidestep status`, unless told otherwise.
pub const SOCKET: &str = "/run/sidestep/agent.sock";

/// Sends the connections of pods to their Istio sidecars with eBPF, in place of iptables.
///
/// Reads Pod files (as Istio's injector left them) from a folder; each names its network namespace in the annotation
/// `sidestep.dev/netns`. Files may be added, changed and removed while it runs. A clean exit (SIGTERM or SIGINT) takes
/// everything out of the kernel; after a crash the next start takes over what is there, and no connection notices.
#[derive(Debug, Parser)]
#[command(version, name = "sidestep-agent")]
pub struct Args {
    /// Folder of Pod files (*.yaml, *.yml, *.json)
    #[arg(long, value_name = "DIR", default_value = "/etc/sidestep/pods")]
    pods: PathBuf,

    /// The cgroup v2 folder that holds the pods' processes; the programs see nothing outside it
    #[arg(long, value_name = "DIR")]
    cgroup: PathBuf,

    /// Folder on a bpffs for what must outlive the agent; a bpffs is mounted at its parent if there is none
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/sidestep")]
    pin: PathBuf,

    /// Unix socket on which `sidestep status` is answered
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,

    /// Let programs of the pod open raw TCP sockets, which go around the proxy (iptables would catch them)
    #[arg(long)]
    allow_raw_sockets: bool,

    /// How often links, pins and namespaces are checked
    #[arg(long, value_name = "MS", default_value = "1000", value_parser = parse_ms)]
    check_interval: Duration,
}

impl Args {
    /// Runs the agent until it is told to stop.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self {
            pods,
            cgroup,
            pin,
            socket,
            allow_raw_sockets,
            check_interval,
        } = self;
        run::run(Settings {
            pods,
            cgroup,
            pin,
            socket,
            strict: !allow_raw_sockets,
            check_interval,
        })
        .await
    }
}

fn parse_ms(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("want a number of milliseconds, at least 1".to_owned()),
        Ok(ms) => Ok(Duration::from_millis(ms)),
    }
}
