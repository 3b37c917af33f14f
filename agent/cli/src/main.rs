//! `sidestep`: the command line for people.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use kube::Client;

mod explain;
mod mutate;
mod probe;
mod status;
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

/// Who asks the API server that kubectl would ask.
async fn client() -> anyhow::Result<Client> {
    // kube asks rustls for a provider of cryptography, and chooses none.
    let _installed_already = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await;
    client.context("no API server: is there a kubeconfig?")
}
