//! `sidestep check`.
//!
//! [`gather`] reads facts, [`verdict`] decides from them without a client, [`print`] shows what was found.

mod facts;
mod finding;
mod gather;
mod print;
mod verdict;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::sleep;

use self::finding::{Finding, Level, Stage, findings};
use self::gather::{Scope, gather};
use crate::cluster::{self, Answer};
use crate::level::Symbols;

/// The namespace in which it is tried whether the webhook answers, unless told otherwise.
const PROBE: &str = "default";

/// The exit code where a check failed.
const FAILED: u8 = 2;

/// Between two tries with --wait.
const INTERVAL: Duration = Duration::from_secs(2);

/// Checks whether a cluster can run Sidestep (--pre), or whether the Sidestep that is installed works.
///
/// Each line is a check: ✓ as it should be, ‼ a warning, ✗ failed; with what to do, and where the documents say more. Nothing is
/// changed: pods are tried with a dry run.
///
/// Exit codes: 0 no check failed, whatever warnings there are; 2 a check failed; 1 the checks could not be made.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidestep check --pre                    # before installing
  sidestep check                          # after
  sidestep check -n shop                  # would a new pod of namespace shop be accelerated?
  sidestep check --wait 120               # in a script, right after installing
  sidestep check -o json | jq '.checks[] | select(.level != \"good\")'")]
pub(crate) struct Args {
    /// Check a cluster on which Sidestep is to be installed
    #[arg(long)]
    pre: bool,

    /// Namespace in which a plain pod is tried; otherwise the first one whose pods Istio injects
    #[arg(long, short = 'n', value_name = "NAME", conflicts_with = "pre")]
    namespace: Option<String>,

    /// Namespace in which it is tried whether the webhook answers
    #[arg(long, value_name = "NAME", default_value = PROBE)]
    probe_namespace: String,

    /// The namespace that Sidestep is installed in
    #[arg(long, value_name = "NAME", default_value = cluster::NAMESPACE)]
    sidestep_namespace: String,

    /// Check again until no check fails, for so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "0")]
    wait: u64,

    /// Output format
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,

    /// Write [ok], [warn] and [FAIL] in place of ✓, ‼ and ✗
    #[arg(long)]
    ascii: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// Lines for people
    Text,
    /// JSON for programs
    Json,
}

impl Args {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let client = cluster::client_that_asks_once().await?;
        let scope = Scope {
            stage: if self.pre {
                Stage::Before
            } else {
                Stage::After
            },
            home: self.sidestep_namespace.clone(),
            probe: self.probe_namespace.clone(),
            trial: self.namespace.clone(),
        };
        let patience = Duration::from_secs(self.wait);
        let checks = settled(&client, &scope, patience);
        let found = cluster::awaited("checking", checks).await?;
        match self.output {
            Output::Json => println!("{:#}", print::json(&found)),
            Output::Text => {
                anstream::print!("{}", print::text(&found, Symbols::chosen(self.ascii)));
            }
        }
        Ok(match print::worst(&found) {
            Level::Good | Level::Warning => ExitCode::SUCCESS,
            Level::Failure => ExitCode::from(FAILED),
        })
    }
}

/// What whoever looks for a fault wants to know of a cluster.
pub(crate) struct Checked {
    /// As `-o json` prints them.
    pub(crate) findings: Value,
    /// By node, what the agents told.
    pub(crate) agents: Vec<(String, Answer)>,
    /// Warnings of ours.
    pub(crate) events: Result<Value, String>,
}

/// Checks a cluster on which Sidestep is installed.
pub(crate) async fn checked(client: &Client, home: &str) -> anyhow::Result<Checked> {
    let scope = Scope {
        stage: Stage::After,
        home: home.to_owned(),
        probe: PROBE.to_owned(),
        trial: None,
    };
    let facts = Box::pin(gather(client, &scope)).await?;
    let findings = print::json(&findings(&facts));
    let agents = facts.agents.unwrap_or_default().into_iter();
    Ok(Checked {
        findings,
        agents: agents.map(|(pod, answer)| (pod.node, answer)).collect(),
        events: facts.events.map(|events| json!(events)),
    })
}

/// What is found when nothing fails any more, or when patience is at its end.
async fn settled(
    client: &Client,
    scope: &Scope,
    patience: Duration,
) -> anyhow::Result<Vec<Finding>> {
    let begun = Instant::now();
    loop {
        let found = Box::pin(gather(client, scope))
            .await
            .map(|facts| findings(&facts));
        let is_well = found
            .as_ref()
            .is_ok_and(|found| print::worst(found) < Level::Failure);
        if is_well || begun.elapsed() >= patience {
            return found;
        }
        sleep(INTERVAL).await;
    }
}
