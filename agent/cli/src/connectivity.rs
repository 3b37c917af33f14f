//! `sidestep connectivity-test`.
//!
//! [`plan`] says which pods there are and [`cases`] what they do; both are pure. [`room`] makes them, and removes them again, [`run`]
//! lets them talk, [`report`] judges, [`print`] shows. The pods run [`serve`], and [`call`] by exec.

mod accelerated;
mod call;
mod cases;
mod install;
mod objects;
mod plan;
mod ports;
mod print;
mod ready;
mod report;
mod room;
mod run;
mod serve;
mod signals;

use std::io::{Write as _, stderr, stdout};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use kube::Client;

use self::install::Install;
use self::plan::Nodes;
use self::report::Report;
use self::room::Room;
use self::run::Test;
use self::signals::Signals;
use crate::cluster;
use crate::level::{Level, Symbols};
use crate::status::Output;

/// The exit code where a case failed with Sidestep.
const FAILED: u8 = 2;

/// Lets pods talk to each other, with Sidestep and with Istio's own redirection, and compares.
///
/// It makes a namespace of its own with a client and servers, on one node and on two, each of them twice: accelerated, and left to
/// Istio. The client calls by HTTP, TCP, gRPC and DNS, with mutual TLS and past the sidecar. Then everything is removed, also when
/// it fails or is interrupted. The pods run the agent's own image, without any privilege.
///
/// Each line is a case: ✓ passed, ✗ failed, ‼ failed with Istio's own redirection, too, so that Sidestep is not the cause.
///
/// Exit codes: 0 no case failed with Sidestep alone; 2 one did; 1 the test could not be made.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  sidestep connectivity-test
  sidestep connectivity-test --node worker-1 --node worker-2
  sidestep connectivity-test --revision canary --timeout 300
  sidestep connectivity-test --keep                # leaves the pods, to look at what failed
  sidestep connectivity-test -o json | jq '.cases[] | select(.level != \"good\")'"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    in_pod: Option<InPod>,

    /// A node to test, and a second time the node to reach from there; otherwise those with ready agents, by name
    #[arg(long = "node", value_name = "NAME")]
    nodes: Vec<String>,

    /// The revision of Istio whose sidecars the pods get; otherwise that of the label istio-injection=enabled
    #[arg(long, value_name = "NAME")]
    revision: Option<String>,

    /// How long the pods may take to be ready
    #[arg(long, value_name = "SECONDS", default_value = "120")]
    timeout: u64,

    /// Leave the namespace with its pods
    #[arg(long)]
    keep: bool,

    /// Output format
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,

    /// Write [ok], [warn] and [FAIL] in place of ✓, ‼ and ✗
    #[arg(long)]
    ascii: bool,

    /// The namespace that Sidestep is installed in
    #[arg(long, value_name = "NAME", default_value = cluster::NAMESPACE)]
    sidestep_namespace: String,
}

/// What runs in the pods.
#[derive(Debug, Subcommand)]
enum InPod {
    #[command(hide = true)]
    Call(call::Args),
    #[command(hide = true)]
    Serve(serve::Args),
}

impl Args {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.in_pod {
            Some(InPod::Call(args)) => args.run().await,
            Some(InPod::Serve(args)) => args.run().await,
            None => Box::pin(self.test()).await,
        }
    }

    async fn test(self) -> anyhow::Result<ExitCode> {
        let client = cluster::client().await?;
        let home = &self.sidestep_namespace;
        let install = Install::found(&client, home).await?;
        let nodes = nodes(&client, home, &self.nodes).await?;
        room::tell_of_leftovers(&client).await?;
        // From here on an interruption must not end the program before it has removed what it made.
        let mut signals = Signals::new()?;
        let room = Room::make(&client, self.revision.as_deref()).await?;
        let test = Test {
            room: &room,
            nodes: &nodes,
            install: &install,
            home,
            patience: Duration::from_secs(self.timeout),
            keep: self.keep,
        };
        let outcome = tokio::select! {
            report = Box::pin(test.run()) => report,
            () = signals.next() => Err(anyhow!("interrupted")),
        };
        if let Ok(report) = &outcome {
            self.print(report);
        }
        if self.keep {
            room.keep();
        } else {
            room.remove(&mut signals).await;
        }
        Ok(match outcome?.level() {
            Level::Good | Level::Warning => ExitCode::SUCCESS,
            Level::Failure => ExitCode::from(FAILED),
        })
    }

    /// Whoever does not read it any more must not keep the pods from being removed.
    fn print(&self, report: &Report) {
        let symbols = Symbols::chosen(self.ascii);
        let _closed = match self.output {
            Output::Json => writeln!(stdout(), "{:#}", print::json(report)),
            Output::Text => write!(anstream::stdout(), "{}", print::text(report, symbols)),
        };
    }
}

/// The nodes to test.
async fn nodes(client: &Client, home: &str, asked: &[String]) -> anyhow::Result<Nodes> {
    let (nodes, agents) = tokio::join!(cluster::nodes(client), cluster::agent_pods(client, home));
    let nodes = nodes.context("listing nodes")?;
    let agents = agents.with_context(|| format!("listing the agents' pods in namespace {home}"))?;
    let answers = cluster::answers(client, home, agents);
    let agents = cluster::awaited("asking the agents", answers).await;
    plan::chosen(asked, &nodes, &agents).map_err(anyhow::Error::msg)
}

/// Says how far it is, to whoever listens.
fn say(what: &str) {
    let _closed = writeln!(stderr(), "{what}");
}
