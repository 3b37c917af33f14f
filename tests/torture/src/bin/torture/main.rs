//! `sidestep-torture`: see `make torture`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use sidestep_agent::shortcut::{Allowed, Options, Reach, Switches};
use sidestep_torture::{
    World,
    run::{Progress, Teller, run},
    worker,
};

/// Random two-way streams between two pods whose sockets are short-cut, every byte checked by its position.
#[derive(Debug, Parser)]
enum Command {
    /// A process of a pod; started by `run`
    Worker,
    /// Measure one hop, as root: time with the shortcut, as a part of TCP's
    Hop {
        /// Rounds; the median counts
        #[arg(long, default_value_t = 7)]
        rounds: u32,
        /// Most unread bytes in a receiver
        #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
        limit: u32,
    },
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

/// One hop, application to sidecar, in interleaved rounds: a message there and back, and a stream.
fn hop(rounds: u32, limit: u32) {
    type Measure = fn(&World) -> u64;
    let allowed = Allowed {
        reach: Reach::Pod,
        from_application: true,
        into_application: true,
    };
    let world = |choice: Choice| World::to_measure(choice.options(limit), allowed);
    let worlds = [Choice::Tcp, Choice::Pass, Choice::Rule].map(world);
    println!(
        "{:>10} {:>9} {:>22} {:>16}",
        "", "TCP, ns", "looked at, and by TCP", "past TCP"
    );
    let table: [(&str, Measure); 5] = [
        ("1 B", |world| world.ping(1, 20_000)),
        ("1 KiB", |world| world.ping(1 << 10, 20_000)),
        ("16 KiB", |world| world.ping(16 << 10, 10_000)),
        ("64 KiB >", |world| world.pour(64 << 10, 20_000)),
        ("1 MiB >", |world| world.pour(1 << 20, 1000)),
    ];
    for (name, measure) in table {
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            for (i, world) in worlds.iter().enumerate() {
                times[i].push(measure(world));
            }
        }
        let [tcp, pass, shortcut] = times.map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2]
        });
        println!(
            "{name:>10} {tcp:>9} {pass:>15} {:>5}% {shortcut:>9} {:>5}%",
            pass * 100 / tcp,
            shortcut * 100 / tcp
        );
    }
    println!("{:?}", worlds[2].tally());
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
        Some(Options {
            limit: match self {
                Self::Rule | Self::Naive => limit,
                Self::Pass => 0, // every receiver is full
                Self::Tcp => return None,
            },
            switches: Switches {
                naive: self == Self::Naive,
                ..Switches::TRUSTING
            },
            ..Options::default()
        })
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let (connections, state, limit, program) = match Command::parse() {
        Command::Worker => {
            worker::obey()?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Hop { rounds, limit } => {
            hop(rounds.max(1), limit);
            return Ok(ExitCode::SUCCESS);
        }
        Command::Run {
            connections,
            state,
            limit,
            program,
        } => (connections, state, limit, program),
    };
    let progress = match &state {
        Some(file) => Progress::read(file, connections)?,
        None => Progress::new()?,
    };
    let mut teller = Teller::new(progress.connections);
    let done = run(
        program.options(limit),
        connections,
        progress,
        state.as_deref(),
        |progress| teller.tell(progress, connections),
    )?;
    for (connection, fault) in &done.report.faults {
        println!("connection {connection}: {fault}");
    }
    println!("{:?}", done.counts);
    let redirects = program == Choice::Rule || program == Choice::Naive;
    let redirected = done
        .counts
        .get("redirected")
        .is_some_and(|count| *count > 0);
    if redirects && !redirected {
        println!("nothing went past TCP");
    }
    Ok(if done.report.is_clean() && redirected == redirects {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
