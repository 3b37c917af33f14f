//! `sidestep-agent`.

use std::process::ExitCode;

use clap::Parser;
use sidestep_agent::args::Args;

fn main() -> ExitCode {
    let args = Args::parse();
    match args.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sidestep-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}
