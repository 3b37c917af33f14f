//! `sidestep-soak`: an agent on a node for an hour, with pods that come and go, connections that never stop, and agents that
//! end and die; and at the end, what is left of all that. See `make soak`.

mod churn;
mod leaks;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use sidestep_kit::{
    kubelet::{Driver, KubeNode},
    needs,
};

use self::{
    churn::{Busy, Churn},
    leaks::{Held, leaks},
};

/// Churns pods, connections and agents, prints a line a minute, and fails where anything is lost or left
#[derive(Debug, Parser)]
struct Args {
    /// How long
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: u32,
}

const LINE: Duration = Duration::from_mins(1);

fn main() -> anyhow::Result<ExitCode> {
    let Args { minutes } = Args::parse();
    if let Err(why) = needs::apiserver() {
        anyhow::bail!("{why}");
    }
    let mut node = KubeNode::without_agent(Driver::Cgroupfs);
    node.start_agent();
    let busy = Busy::start(&node);
    let mut churn = Churn::start()?;
    let begun = Instant::now();
    let end = begun + LINE * minutes;
    let half = begun + LINE * minutes / 2;
    println!("{}", Held::HEAD);

    // Agents come and go in the first half; one lives through all of the second, where it would grow.
    let mut before = None;
    let mut line = begun + LINE;
    while Instant::now() < end {
        churn.round(&node)?;
        let now = Instant::now();
        if now < half {
            churn.next_agent(&mut node);
        } else if before.is_none() {
            before = Some(Held::by(&node));
        }
        if now >= line {
            println!("{}", Held::by(&node).line(begun.elapsed(), &churn));
            line += LINE;
        }
    }
    let before = before.unwrap_or_else(|| Held::by(&node));
    let after = Held::by(&node);
    println!("{}", after.line(begun.elapsed(), &churn));
    let mut wrong = leaks(&before, &after);
    wrong.extend(churn.faults());
    wrong.extend(busy.end());
    wrong.extend(leaks::of_an_end(node));
    for what in &wrong {
        println!("wrong: {what}");
    }
    if wrong.is_empty() {
        println!("nothing was lost, and nothing is left");
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::FAILURE)
    }
}
