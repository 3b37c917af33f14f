//! `sidestep-agent`.

use std::process::ExitCode;

use clap::Parser;
use sidestep_agent::args::Args;

fn main() -> ExitCode {
    match Args::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sidestep-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
