//! `sidestep-webhook`.

use std::process::ExitCode;

use clap::Parser;
use sidestep_webhook::{args::Args, tls};

#[tokio::main]
async fn main() -> ExitCode {
    tls::install_provider();
    sidestep_runtime::logging::init();
    match Args::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sidestep-webhook: {error:#}");
            ExitCode::FAILURE
        }
    }
}
