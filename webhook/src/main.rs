//! `sidestep-webhook`.

use std::process::ExitCode;

use clap::Parser;
use sidestep_webhook::{args::Args, tls};

#[tokio::main]
async fn main() -> ExitCode {
    tls::install_provider();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    match Args::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sidestep-webhook: {error:#}");
            ExitCode::FAILURE
        }
    }
}
