//! `sidestep flows`.

mod follow;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use serde_json::json;
use sidestep_agent_api::{Flows, ask_flows};
use tokio::time::sleep;

use crate::cluster::{self, AgentPod};
use crate::status::{Output, Target};

/// Between two looks with --follow.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows a pod's connections: where each wanted to go, which row decided it, and whether its bytes go past TCP.
///
/// The agent of the pod's node tells them, asked by exec in its container. Where both ends of a connection are in the pod, the
/// application's is shown; what the sidecar has with itself is not. A pod shows 4096 sockets at most.
///
/// Exit codes: 0 told, 1 everything else.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidestep flows pod/web-0 -n shop
  sidestep flows pod/web-0 -n shop --follow          # a line for each connection that comes, goes or changes its way
  sidestep flows pod/web-0 -n shop -o json | jq '.flows[] | select(.way == \"tcp\") | .because'")]
pub(crate) struct Args {
    /// The pod, as pod/NAME
    #[arg(value_name = "POD", value_parser = pod_name)]
    pod: String,

    /// Its namespace
    #[arg(long, short = 'n', value_name = "NAME", default_value = "default")]
    namespace: String,

    /// Look again every second, and show what changes, until it is interrupted
    #[arg(long, short = 'f')]
    follow: bool,

    /// Output format; JSON has with --follow a line for each look
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,

    /// Ask the agent on this Unix socket, and no cluster
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// The namespace that Sidestep is installed in
    #[arg(long, value_name = "NAME", default_value = cluster::NAMESPACE)]
    sidestep_namespace: String,
}

fn pod_name(text: &str) -> Result<String, String> {
    match text.parse() {
        Ok(Target::Pod(name)) => Ok(name),
        _ => Err("want pod/NAME".to_owned()),
    }
}

/// Who tells.
enum Teller {
    Socket(PathBuf),
    Agent(Client, Box<AgentPod>),
}

impl Args {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let teller = self.teller().await?;
        let mut before: Option<Flows> = None;
        loop {
            match (self.look(&teller).await, &before) {
                (Ok(now), _) => {
                    self.print(before.as_ref(), &now);
                    before = Some(now);
                }
                // Who follows wants to see what comes after an upgrade, too.
                (Err(error), Some(_)) => eprintln!("sidestep: {error:#}; looking again"),
                (Err(error), None) => return Err(error),
            }
            if !self.follow {
                return Ok(ExitCode::SUCCESS);
            }
            sleep(INTERVAL).await;
        }
    }

    async fn teller(&self) -> anyhow::Result<Teller> {
        if let Some(socket) = &self.socket {
            return Ok(Teller::Socket(socket.clone()));
        }
        let client = cluster::client().await?;
        let api: Api<Pod> = Api::namespaced(client.clone(), &self.namespace);
        let what = || format!("pod {}/{}", self.namespace, self.pod);
        let pod = api.get(&self.pod).await.with_context(what)?;
        let node = pod.spec.and_then(|spec| spec.node_name);
        let node = node.with_context(|| format!("{} is on no node yet", what()))?;
        let agents = cluster::agent_pods(&client, &self.sidestep_namespace).await?;
        let agent = agents.into_iter().find(|agent| agent.node == node);
        let agent = agent.with_context(|| {
            format!(
                "{} is on node {node}, which has no agent of Sidestep's",
                what()
            )
        })?;
        Ok(Teller::Agent(client, Box::new(agent)))
    }

    async fn look(&self, teller: &Teller) -> anyhow::Result<Flows> {
        let told = match teller {
            Teller::Socket(socket) => ask_flows(socket, &self.namespace, &self.pod).await?,
            Teller::Agent(client, agent) => {
                let pod = (self.namespace.as_str(), self.pod.as_str());
                let ask = cluster::flows(client, &self.sidestep_namespace, agent, pod);
                cluster::awaited("asking the agent", ask).await
            }
        };
        told.map_err(|why| anyhow!("{}/{}: {why}", self.namespace, self.pod))
    }

    fn print(&self, before: Option<&Flows>, now: &Flows) {
        match (self.output, before) {
            (Output::Json, _) if self.follow => println!("{}", json!(now)),
            (Output::Json, _) => println!("{:#}", json!(now)),
            (Output::Text, None) => print!("{}", show::all(now)),
            (Output::Text, Some(before)) => print!("{}", follow::changes(before, now)),
        }
    }
}
