//! `sidestep-exact`: see `make bench-exact`.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use sidestep_bench::{
    Case, Setting,
    exact::{self, Kept, Plan, Report},
};

/// Counts the instructions of a request, by iptables and by Sidestep with each reach of the shortcut, in emulated machines.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    own: Outside,
}

#[derive(Debug, Subcommand)]
enum What {
    /// In the machine: what it prints is read outside
    #[command(hide = true)]
    Inside(Inside),
}

#[derive(Debug, Args)]
struct Common {
    /// What to compare
    #[arg(long = "setting", value_enum, value_delimiter = ',', default_values_t = Setting::EXACT)]
    settings: Vec<Setting>,
    /// Kinds of traffic
    #[arg(long = "case", value_enum, value_delimiter = ',', default_values_t = Case::EXACT)]
    cases: Vec<Case>,
    /// Seconds of the machine's clock for each: a thousand million instructions
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

#[derive(Debug, Args)]
struct Inside {
    #[command(flatten)]
    common: Common,
    /// Print the kernel's functions, too
    #[arg(long)]
    symbols: bool,
}

#[derive(Debug, Args)]
struct Outside {
    #[command(flatten)]
    common: Common,
    /// Kernels, as .parts/kernels names them
    #[arg(long = "kernel", value_delimiter = ',', default_values_t = ["6.12.117".to_owned(), "7.3".to_owned()])]
    kernels: Vec<String>,
    /// Print so many of the kernel's functions, the dearest first
    #[arg(long, value_name = "COUNT", num_args = 0..=1, default_missing_value = "40")]
    profile: Option<usize>,
    /// Fail where the kernel's part of a request, or a run of one of our programs, is not what this file says
    #[arg(long, value_name = "FILE", conflicts_with = "keep")]
    against: Option<PathBuf>,
    /// Write that file
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
    /// Where the same goes as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where it goes as a picture
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(What::Inside(Inside { common, symbols })) = arguments.what {
        let duration = Duration::from_secs(common.seconds);
        return exact::inside(&common.settings, &common.cases, duration, symbols);
    }
    let Outside {
        common,
        kernels,
        profile,
        against,
        keep,
        json,
        svg,
    } = arguments.own;
    let plan = Plan {
        kernels,
        settings: common.settings,
        cases: common.cases,
        duration: Duration::from_secs(common.seconds),
        profile: profile.is_some(),
    };
    let mut report = Report::default();
    for kernel in &plan.kernels {
        let (measured, profiles) = plan.measure(kernel, |line| eprintln!("exact: {line}"))?;
        report.kernels.push((kernel.clone(), measured));
        if let Some(count) = profile {
            print!("{}", profiles.dearest(count));
        }
    }
    println!("{report}");
    if let Some(file) = json {
        let text = format!("{:#}\n", serde_json::to_value(&report)?);
        fs::write(&file, text).with_context(|| file.display().to_string())?;
    }
    if let Some(file) = svg {
        report.draw(&file)?;
    }
    if let Some(file) = keep {
        Kept::of(&report).write(&file)?;
    }
    against.map_or(Ok(()), |file| Kept::read(&file)?.compare(&report))
}
