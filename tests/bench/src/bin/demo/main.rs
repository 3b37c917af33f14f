//! `make demo`: the same traffic between two pods with real Envoy sidecars, with Istio's iptables rules, with Sidestep, and with
//! Sidestep's shortcut between the sidecars.

mod interrupt;
mod leftovers;
mod measure;
mod report;
mod variant;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Duration,
};

use anyhow::{bail, ensure};
use clap::{Parser, ValueEnum};

use self::{measure::Plan, report::Report, variant::Variant};

/// Sends the same traffic through two pods with sidecars, redirected in each of several ways, and compares.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds; in each, every variant is measured once, in changing order.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of load for one variant, one kind of traffic, one round.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Connections at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=512))]
    connections: u32,
    /// What to compare; ratios are to the first.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Variant::Iptables, Variant::Sidestep, Variant::Shortcut])]
    variants: Vec<Variant>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    let Args {
        rounds,
        seconds,
        connections,
        variants,
        output,
    } = Args::parse();
    let plan = Plan {
        rounds,
        duration: Duration::from_secs(seconds),
        connections,
        variants,
    };
    match run(&plan) {
        Ok(report) => {
            match output {
                Output::Text => print!("{report}"),
                Output::Json => println!("{}", report.json()),
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::from(if interrupt::happened() { 130 } else { 1 })
        }
    }
}

/// Whatever happens in between, nothing stays behind, and this is looked up rather than assumed.
fn run(plan: &Plan) -> anyhow::Result<Report> {
    plan.check()?;
    interrupt::install();
    let outcome = catch_unwind(AssertUnwindSafe(|| plan.run()));
    let left = leftovers::list();
    ensure!(left.is_empty(), "left behind: {}", left.join(", "));
    eprintln!("demo: every namespace, cgroup, process and folder is removed");
    match outcome {
        _ if interrupt::happened() => bail!("interrupted"),
        Ok(report) => report,
        Err(_) => bail!("a step failed; its message is above"),
    }
}
