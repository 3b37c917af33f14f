//! `sidestep-cluster`: a real Kubernetes node with Istio, up and down.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::Context;
use clap::{Parser, Subcommand};
use sidestep_cluster::{
    Cluster, DEFAULT_NAME, Life, Place, down,
    images::{self, APP},
    kubectl,
    machine::{self, Kind, Machine},
    sidestep, wrappers,
};

/// A real one-node Kubernetes with Istio, in namespaces and a cgroup of its own. Needs root, and `tests/setup.sh cluster` once.
#[derive(Debug, Parser)]
struct Args {
    /// The cluster's name, also that of its network namespace and cgroup.
    #[arg(long, default_value = DEFAULT_NAME, global = true)]
    name: String,
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Bring it up and say how to use it.
    Up,
    /// End it and remove everything of it.
    Down,
    /// Say whether it is up.
    Status,
    /// Import image archives.
    Load {
        /// The archives.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Install Sidestep from this checkout: build the images, import them, install the chart.
    Install {
        /// Values of the chart, as `key=value`.
        values: Vec<String>,
    },
    /// Add machines of the field lab as nodes: Debians that QEMU emulates. Needs `tests/setup.sh field` once.
    Join {
        /// Their names.
        #[arg(required = true)]
        machines: Vec<String>,
    },
    /// Run a shell script in such a machine, as root.
    Shell {
        /// The machine's name.
        machine: String,
        /// The script.
        script: String,
    },
    /// Run its kubectl, istioctl or helm.
    #[command(external_subcommand)]
    Run(Vec<String>),
}

fn main() -> anyhow::Result<ExitCode> {
    let Args { name, command } = Args::parse();
    let place = Place::new(&name)?;
    match command {
        Action::Up => up(&place)?,
        Action::Down => {
            let there = down(&place)?;
            println!(
                "{name}: {}",
                if there { "removed" } else { "there was none" }
            );
        }
        Action::Status => {
            Cluster::attach(&place)?;
            usage(&place);
        }
        Action::Load { archives } => {
            let cluster = Cluster::attach(&place)?;
            for archive in archives {
                let archive = archive
                    .canonicalize()
                    .with_context(|| archive.display().to_string())?;
                images::import(&place, cluster.host(), &archive)?;
            }
        }
        Action::Install { values } => install(&place, &values)?,
        Action::Join { machines } => join(&place, &machines)?,
        Action::Shell { machine, script } => {
            let cluster = Cluster::attach(&place)?;
            print!(
                "{}",
                machine::run(&cluster, Kind::named(&machine)?, &script)?
            );
        }
        Action::Run(words) => return run(&place, &words),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(place: &Place) -> anyhow::Result<()> {
    if Cluster::attach(place).is_err() {
        let began = Instant::now();
        Cluster::up(place, Life::Detached, &mut |step| {
            eprintln!("{:5.1} s  {step}", began.elapsed().as_secs_f64());
        })?;
        eprintln!("{:5.1} s  ready", began.elapsed().as_secs_f64());
    }
    usage(place);
    Ok(())
}

fn install(place: &Place, values: &[String]) -> anyhow::Result<()> {
    let cluster = Cluster::attach(place)?;
    eprintln!("building the images");
    let images = sidestep::build_images(&["webhook", "agent"])?;
    eprintln!("installing the chart");
    let values: Vec<_> = values.iter().map(String::as_str).collect();
    sidestep::install(&cluster, &images, &values)?;
    eprintln!("ready");
    usage(place);
    Ok(())
}

fn join(place: &Place, machines: &[String]) -> anyhow::Result<()> {
    let cluster = Cluster::attach(place)?;
    let kinds: Vec<_> = machines
        .iter()
        .map(|name| Kind::named(name))
        .collect::<Result<_, _>>()?;
    let images = sidestep::build_images_for_machines()?;
    Machine::start_all(&cluster, &kinds, &images, &mut |step| eprintln!("{step}"))?;
    Ok(())
}

fn usage(place: &Place) {
    println!("The cluster {} is up. Its programs:", place.name());
    for program in wrappers::PROGRAMS {
        println!("  {}", place.file(program).display());
    }
    let kubectl = place.file("kubectl");
    let kubectl = kubectl.display();
    println!(
        "Where Sidestep is installed, pods that Istio injects are accelerated:\n  \
         {kubectl} label namespace default istio-injection=enabled\n  \
         {kubectl} run web --image={APP} --image-pull-policy=Never -- sidestep-app serve --pod web --listen 0.0.0.0:8080\n  \
         {kubectl} get pods -l sidestep.dev/accelerated\n  \
         {kubectl} -n {} exec daemonset/sidestep-agent -- sidestep status",
        sidestep::NAMESPACE
    );
    println!("It is gone with `make cluster-down`.");
}

fn run(place: &Place, words: &[String]) -> anyhow::Result<ExitCode> {
    let (program, arguments) = words.split_first().context("a program")?;
    anyhow::ensure!(
        wrappers::PROGRAMS.contains(&program.as_str()),
        "{program} is not one of {}",
        wrappers::PROGRAMS.join(", ")
    );
    let mut command = kubectl::in_network(place, &place.program(program)?)?;
    let status = command.args(arguments).status()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
