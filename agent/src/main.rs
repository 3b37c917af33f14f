//! `sidestep-agent`.

use std::process::ExitCode;

use clap::Parser;
use sidestep_agent::{args::Args, shortcut::selftest};

fn main() -> ExitCode {
    // The self-test's process has one thread, and no arguments.
    let word = std::env::args_os().nth(1);
    if word.is_some_and(|word| word == selftest::WORKER) {
        return exit("self-test", selftest::worker::run().map_err(Into::into));
    }
    exit("sidestep-agent", Args::parse().run())
}

fn exit(who: &str, outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{who}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
