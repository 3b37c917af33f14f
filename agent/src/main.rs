//! `sidestep-agent`.

use std::process::ExitCode;

use clap::Parser;
use sidestep_agent::{args::Args, preflight::selinux};

fn main() -> ExitCode {
    match Args::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sidestep-agent: {}", selinux::named(&error));
            ExitCode::FAILURE
        }
    }
}
