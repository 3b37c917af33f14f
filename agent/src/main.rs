//! `sidestep-agent`.

use std::process::ExitCode;

use clap::Parser;
use sidestep_agent::args::Args;

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    match Args::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sidestep-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
