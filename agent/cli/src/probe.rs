//! `sidestep probe`: what kubelet runs in the agent's container. What it prints is in kubelet's Event.

use std::{path::PathBuf, process::ExitCode};

use clap::ValueEnum;
use sidestep_agent_api::{Probe, SOCKET, probe};

/// Asks the agent whether it is ready, or alive; exits with 1 and says why where it is not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is asked
    #[arg(value_enum)]
    what: What,

    /// Unix socket of the agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// Whether the agent arms new pods
    Ready,
    /// Whether the agent works, or must be started anew
    Alive,
}

impl Args {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let Self { what, socket } = self;
        let what = match what {
            What::Ready => Probe::Ready,
            What::Alive => Probe::Alive,
        };
        match probe(&socket, what).await? {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(reasons) => {
                print!("{reasons}");
                Ok(ExitCode::FAILURE)
            }
        }
    }
}
