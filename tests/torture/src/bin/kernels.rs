//! `sidestep-kernels`: see `make kernels`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use sidestep_kit::parts;
use sidestep_torture::kernels::{Kernel, On, Plan, Report, Where, run, survey};

/// What Sidestep can do on other kernels and on this one, as a table.
#[derive(Debug, Parser)]
enum Command {
    /// Find out on the running kernel, as root; prints a line of JSON
    Survey {
        /// Connections of torture
        connections: u64,
    },
    /// Run everything on each kernel, as root
    Run {
        /// A kernel of .parts/kernels, and what of the shortcut must be on there: nothing, sidecars or applications; may be
        /// given several times
        #[arg(long, value_name = "NAME=ON", value_parser = machine)]
        kernel: Vec<Where>,
        /// The folder of our programs, where they are for another architecture than this one
        #[arg(long, value_name = "FOLDER", conflicts_with = "here")]
        from: Option<PathBuf>,
        /// Also on the running one
        #[arg(long)]
        here: bool,
        /// A test binary, and which of its tests: NAME=PATH[,ARGUMENT]...
        #[arg(long, value_parser = suite)]
        suite: Vec<(String, (PathBuf, Vec<String>))>,
        /// Take the real programs along that tests start
        #[arg(long)]
        programs: bool,
        /// Connections of torture in an emulated machine
        #[arg(long, default_value_t = 400)]
        emulated: u64,
        /// Connections of torture on the running kernel
        #[arg(long, default_value_t = 20_000)]
        connections: u64,
        /// When a machine is ended
        #[arg(long, default_value_t = 1500)]
        seconds: u64,
        /// Where the same goes as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

fn machine(text: &str) -> Result<Where, String> {
    let (name, on) = text.split_once('=').ok_or("write NAME=ON")?;
    let on = On::from_str(on, false)?;
    Ok(Where::Machine(name.to_owned(), on))
}

fn suite(text: &str) -> Result<(String, (PathBuf, Vec<String>)), String> {
    let (name, rest) = text
        .split_once('=')
        .ok_or("write NAME=PATH, and arguments after commas")?;
    let mut words = rest.split(',').map(str::to_owned);
    let path = words.next().unwrap_or_default();
    Ok((name.to_owned(), (path.into(), words.collect())))
}

fn main() -> anyhow::Result<ExitCode> {
    match Command::parse() {
        Command::Survey { connections } => {
            println!("survey: {}", serde_json::to_string(&survey(connections))?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Run {
            kernel,
            from,
            here,
            suite,
            programs,
            emulated,
            connections,
            seconds,
            json,
        } => {
            let plan = Plan {
                tests: parts::workspace().join("tests"),
                programs: own_programs(from.as_deref(), !suite.is_empty())?,
                suites: suite.into_iter().collect(),
                real_programs: programs,
                connections: (emulated, connections),
                seconds,
            };
            let mut places = kernel;
            if here {
                places.push(Where::Here);
            }
            let report = try_all(&plan, &places)?;
            println!("\n{report}");
            if let Some(file) = json {
                fs::write(&file, serde_json::to_vec_pretty(&report)?)
                    .with_context(|| file.display().to_string())?;
            }
            let good = report.kernels.iter().all(Kernel::is_good);
            Ok(if good {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}

/// This program first; test binaries need more than it does.
fn own_programs(from: Option<&Path>, has_suites: bool) -> anyhow::Result<Vec<PathBuf>> {
    let own = std::env::current_exe()?;
    let folder = match from {
        Some(folder) => folder
            .canonicalize()
            .with_context(|| folder.display().to_string())?,
        None => own.parent().context("a program is in a folder")?.to_owned(),
    };
    let own = ["sidestep-kernels", "sidestep-agent", "sidestep-torture"];
    let of_suites: &[_] = if has_suites {
        &["sidestep", "sidestep-actor"]
    } else {
        &[]
    };
    let names = own.iter().chain(of_suites);
    Ok(names.map(|name| folder.join(name)).collect())
}

fn try_all(plan: &Plan, places: &[Where]) -> anyhow::Result<Report> {
    let mut report = Report::default();
    for place in places {
        let name = match place {
            Where::Here => "the running kernel",
            Where::Machine(name, _) => name,
        };
        println!("kernels: {name}");
        report
            .kernels
            .push(run(plan, place, |line| println!("  {line}"))?);
    }
    Ok(report)
}
