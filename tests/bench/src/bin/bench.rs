//! `sidestep-bench`: see `make bench`.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use clap::Parser;
use sidestep_bench::{Case, OnCluster, Plan, Pods, Setting, Stage, draw, measure};
use sidestep_cluster::{Cluster, Place, sidestep};

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
    /// On a real Kubernetes node with a real Istio; with a name: on that cluster, which is up and has Sidestep
    #[arg(long, value_name = "NAME", num_args = 0..=1)]
    #[expect(
        clippy::option_option,
        reason = "clap's way to tell an option without a value from none"
    )]
    cluster: Option<Option<String>>,
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
        cluster,
        json,
        svg,
    } = Args::parse();
    // SAFETY: geteuid has no arguments and always succeeds.
    let user = unsafe { libc::geteuid() };
    ensure!(user == 0, "needs root: it makes network namespaces");
    let plan = Plan {
        rounds,
        duration: Duration::from_secs(seconds),
        cases,
    };
    let tell = |line: &str| eprintln!("bench: {line}");
    let report = match cluster {
        None => measure(&plan, &mut in_namespaces(&settings, tell)?, tell)?,
        Some(name) => {
            let cluster = bring_up(name.as_deref(), tell)?;
            measure(&plan, &mut on(&cluster, &settings, tell)?, tell)?
        }
    };
    println!("{report}");
    if let Some(file) = json {
        let text = format!("{:#}\n", report.json());
        fs::write(&file, text).with_context(|| file.display().to_string())?;
    }
    if let Some(file) = svg {
        draw(&report, &file)?;
    }
    Ok(())
}

type Stages<'a> = Vec<Box<dyn Stage + 'a>>;

fn in_namespaces(settings: &[Setting], tell: impl Fn(&str)) -> anyhow::Result<Stages<'static>> {
    let mut stages: Stages<'static> = Vec::new();
    for setting in settings {
        tell(&format!("{}: two pods with a sidecar each", setting.name()));
        stages.push(Box::new(Pods::new(*setting)?));
    }
    Ok(stages)
}

fn bring_up(name: Option<&str>, tell: impl Fn(&str)) -> anyhow::Result<Cluster> {
    if let Some(name) = name {
        return Cluster::attach(&Place::new(name)?);
    }
    tell("the images of Sidestep");
    let images = sidestep::build_images(&["webhook", "agent"])?;
    tell("a cluster of its own, with Istio and Sidestep");
    let cluster = Cluster::for_tests()?;
    sidestep::install(&cluster, &images, &[])?;
    Ok(cluster)
}

fn on<'a>(
    cluster: &'a Cluster,
    settings: &[Setting],
    tell: impl Fn(&str),
) -> anyhow::Result<Stages<'a>> {
    let mut stages: Stages<'a> = Vec::new();
    for setting in settings {
        tell(&format!("{}: two pods", setting.name()));
        stages.push(Box::new(OnCluster::new(cluster, *setting)?));
    }
    Ok(stages)
}
