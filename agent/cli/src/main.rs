//! `sidestep`: the command line for people.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bugreport;
mod check;
mod cluster;
mod connectivity;
mod explain;
mod flows;
mod level;
mod mutate;
mod probe;
mod shell;
mod status;
mod table;
mod uninstall;

/// Shows what Sidestep does with a cluster's pods, and why; finds what is wrong; and takes it away again.
///
/// It asks the API server that kubectl would ask: KUBECONFIG names the file.
#[derive(Debug, Parser)]
#[command(
    version,
    name = "sidestep",
    after_help = "Examples:
  sidestep check --pre                                # may Sidestep be installed here?
  sidestep check                                      # does it work?
  sidestep connectivity-test                          # do connections go as they go without it?
  sidestep status -A                                  # what became of each pod, and why
  sidestep explain pod/web-0 -n shop --to 10.0.0.7:5432
  sidestep COMMAND --help                             # more, with examples"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bugreport(bugreport::Args),
    Check(check::Args),
    Completions(shell::Completions),
    ConnectivityTest(connectivity::Args),
    Explain(explain::Args),
    Flows(flows::Args),
    #[command(hide = true)]
    Man(shell::Man),
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
        Command::Bugreport(args) => args.run().await,
        Command::Check(args) => args.run().await,
        Command::Completions(args) => args.run::<Args>(),
        Command::ConnectivityTest(args) => args.run().await,
        Command::Explain(args) => args.run().await,
        Command::Flows(args) => args.run().await,
        Command::Man(args) => args.run::<Args>(),
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
