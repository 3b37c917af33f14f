//! `sidestep-bench`: see `make bench-shortcut`.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use clap::Parser;
use sidestep_tests::bench::{Case, Plan, Setting, draw, measure};

/// Requests through two sidecars with mutual TLS, by iptables and by Sidestep with each reach of the shortcut, as root.
#[derive(Debug, Parser)]
struct Args {
    /// Rounds; the medians count
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// What to compare; ratios are to the first
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Setting::ALL)]
    settings: Vec<Setting>,
    /// Kinds of traffic
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Case::ALL)]
    cases: Vec<Case>,
    /// Where the same goes as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where it goes as a picture
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let Args {
        rounds,
        seconds,
        settings,
        cases,
        json,
        svg,
    } = Args::parse();
    // SAFETY: geteuid has no arguments and always succeeds.
    let user = unsafe { libc::geteuid() };
    ensure!(user == 0, "needs root: it makes network namespaces");
    let plan = Plan {
        rounds,
        duration: Duration::from_secs(seconds),
        settings,
        cases,
    };
    let report = measure(&plan, |line| eprintln!("bench: {line}"))?;
    println!("{report}");
    if let Some(file) = json {
        fs::write(&file, format!("{:#}\n", report.json()))
            .with_context(|| file.display().to_string())?;
    }
    if let Some(file) = svg {
        draw(&report, &file)?;
    }
    Ok(())
}
