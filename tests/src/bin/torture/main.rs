//! `sidestep-torture`: see `make torture`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use sidestep_agent::shortcut::{Mode, Options, Readers};
use sidestep_tests::torture::{
    run::{Progress, Teller, run},
    worker,
};

/// Random two-way streams between two pods whose sockets are short-cut, every byte checked by its position.
#[derive(Debug, Parser)]
enum Command {
    /// A process of a pod; started by `run`
    Worker,
    /// Play connections, as root, in network namespaces of its own
    Run {
        /// How many
        #[arg(long, default_value_t = 20_000)]
        connections: u64,
        /// Where the run keeps how far it is, and goes on from
        #[arg(long, value_name = "FILE")]
        state: Option<PathBuf>,
        /// Most unread bytes in a receiver; a small limit makes connections change between TCP and the shortcut all the time
        #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
        limit: u32,
        /// What the programs do with messages
        #[arg(long, value_enum, default_value = "rule")]
        program: Choice,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// Redirect where order and memory allow it
    Rule,
    /// Look at each message, and leave it to TCP
    Pass,
    /// Redirect whatever has another end, as the usual recipe does: this must fail
    Naive,
    /// There are no programs
    Tcp,
}

impl Choice {
    fn options(self, limit: u32) -> Option<Options> {
        let mode = match self {
            Self::Rule => Mode::Rule,
            Self::Pass => Mode::Pass,
            Self::Naive => Mode::Naive,
            Self::Tcp => return None,
        };
        Some(Options {
            mode,
            limit,
            readers: Readers::Trusted,
            ..Options::default()
        })
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let (connections, state, options) = match Command::parse() {
        Command::Worker => {
            worker::obey()?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Run {
            connections,
            state,
            limit,
            program,
        } => (connections, state, program.options(limit)),
    };
    let progress = state
        .as_deref()
        .map_or(Ok(Progress::default()), Progress::read)?;
    let mut teller = Teller::new(progress.connections);
    let done = run(
        options,
        connections,
        progress,
        state.as_deref(),
        |progress| teller.tell(progress, connections),
    )?;
    for (connection, fault) in &done.report.faults {
        println!("connection {connection}: {fault}");
    }
    println!("{:?}", done.counts);
    Ok(if done.report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
