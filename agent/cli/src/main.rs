//! `sidestep`: the command line for people.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod check;
mod cluster;
mod explain;
mod mutate;
mod probe;
mod status;
mod table;
mod uninstall;

/// Shows what Sidestep does with a node's pods, and why.
#[derive(Debug, Parser)]
#[command(version, name = "sidestep")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Args),
    Explain(explain::Args),
    Mutate(mutate::Args),
    #[command(hide = true)]
    Probe(probe::Args),
    Status(status::Args),
    Uninstall(uninstall::Args),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Args { command } = Args::parse();
    let done = match command {
        Command::Check(args) => args.run().await,
        Command::Explain(args) => args.run().await,
        Command::Mutate(args) => args.run(),
        Command::Probe(args) => args.run().await,
        Command::Status(args) => args.run().await,
        Command::Uninstall(args) => args.run().await,
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sidestep: {error:#}");
            ExitCode::FAILURE
        }
    }
}
