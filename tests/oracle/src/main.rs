//! Compares Sidestep's decisions with the rules of Istio's own program. Root; every namespace it makes is removed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use sidestep_kit::needs;
use sidestep_oracle::{
    case::Case,
    compare::{answer, describe},
    mutants::{MUTANTS, one_of_each_row, try_each},
    plan::{Reason, plan},
    record::record,
    report::Report,
    shrink::shrink,
};

#[derive(Debug, Parser)]
#[command(about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare random policies and connections, and show what differs
    Compare {
        /// About how many (policy, connection) pairs
        #[arg(long, default_value_t = 30_000)]
        cases: usize,
        /// The seed of all chance; drawn, and printed, if it is not given
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Change one row of the decision lists after the other in a copy of the sources: each change must be seen
    Mutate {
        /// Every change there is, not one of each row
        #[arg(long)]
        all: bool,
        /// The seed of all chance; the same each time, so that no row goes unseen by bad luck
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Print how many of these recorded cases are answered otherwise than by Istio's rules
    #[command(hide = true)]
    Check { file: PathBuf },
}

/// Connections of one policy.
const CONNECTIONS: usize = 60;
/// Policies with random settings, at the least.
const RANDOMS: usize = 150;
/// Differences that are shrunk and shown; shrinking one takes Istio's program dozens of runs.
const SHOWN: usize = 5;

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Compare { cases, seed } => compare(cases, seed),
        Command::Mutate { all, seed } => mutate(all, seed),
        Command::Check { file } => check(&file),
    }
}

/// A drawn seed is printed, so that the same can be had again.
fn seeded(seed: Option<u64>) -> u64 {
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("the same again: --seed {seed}");
    seed
}

fn mutate(all: bool, seed: u64) -> anyhow::Result<ExitCode> {
    can_record()?;
    let began = Instant::now();
    // The others add time, and no rows.
    let mut plan = plan(seed, RANDOMS);
    plan.retain(|planned| ![Reason::Large, Reason::Spelling].contains(&planned.reason));
    let cases = record(&plan, CONNECTIONS);
    let mutants = if all {
        MUTANTS.iter().collect()
    } else {
        one_of_each_row()
    };
    let pairs = pairs(&cases);
    println!(
        "How many of {pairs} cases differ from Istio's rules when a row of the decision is changed:"
    );
    let tried = try_each(&cases, &mutants, |it| println!("  {it}"))?;
    let unseen: Vec<_> = tried.iter().filter(|it| it.differences == 0).collect();
    println!("took {} s", began.elapsed().as_secs());
    for it in &unseen {
        println!("not seen: {}", it.mutant);
    }
    Ok(exit_code(unseen.is_empty()))
}

fn check(file: &Path) -> anyhow::Result<ExitCode> {
    let json = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let cases: Vec<Case> = serde_json::from_slice(&json)?;
    println!("{}", judge(&cases)?.differences.len());
    Ok(ExitCode::SUCCESS)
}

fn judge(cases: &[Case]) -> anyhow::Result<Report> {
    let mut report = Report::default();
    for (index, case) in cases.iter().enumerate() {
        let answer = answer(case).with_context(|| format!("the rules of {}", case.policy))?;
        report.count(index, case, answer);
    }
    Ok(report)
}

fn pairs(cases: &[Case]) -> usize {
    cases.iter().map(|case| case.attempts.len()).sum()
}

fn exit_code(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Whether everything is there by which rules are written and read.
fn can_record() -> anyhow::Result<()> {
    let programs = ["iptables-nft-save", "ip6tables-nft-save", "nft"];
    let needs = needs::root().and(needs::part("pilot-agent"));
    let needs = needs.and_then(|()| programs.into_iter().try_for_each(needs::program));
    needs.map_err(anyhow::Error::msg)
}

fn compare(cases: usize, seed: Option<u64>) -> anyhow::Result<ExitCode> {
    can_record()?;
    let began = Instant::now();
    let seed = seeded(seed);
    let fixed = plan(seed, 0).len();
    let randoms = (cases / CONNECTIONS).saturating_sub(fixed).max(RANDOMS);
    let cases = record(&plan(seed, randoms), CONNECTIONS);
    let report = judge(&cases)?;
    println!("{report}");
    println!("took {} s", began.elapsed().as_secs());
    show(&cases, &report);
    if !report.differences.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    let (asked, compared) = (pairs(&cases), report.pairs());
    ensure!(
        compared * 4 > asked * 3,
        "of {asked} cases only {compared} were compared: too many policies are left or refused"
    );
    let unreached = report.unreached();
    ensure!(
        unreached.is_empty(),
        "no connection was decided by {}",
        unreached.join(", ")
    );
    Ok(ExitCode::SUCCESS)
}

/// Of each kind of difference one, as small as it goes.
fn show(cases: &[Case], report: &Report) {
    let mut kinds = BTreeSet::new();
    for (index, difference) in &report.differences {
        let istio = &difference.istio;
        let chain = istio.by.as_ref().map(|by| by.chain.clone());
        let kind = (difference.sidestep.row.name(), istio.arrival, chain);
        if kinds.len() < SHOWN && kinds.insert(kind) {
            let (case, difference) = shrink(&cases[*index], difference);
            println!("differs:\n{}", describe(&case, &difference));
        }
    }
}
