//! `sidestep status`.

mod agent;
mod nodes;
mod pods;
mod view;

use std::io::{IsTerminal as _, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Value, json};
use sidestep_agent_api::SOCKET;
use tokio::time::sleep;

use self::view::View;
use crate::cluster;

/// The exit code where something needs attention.
const ATTENTION: u8 = 2;

/// Between two looks with --watch.
const INTERVAL: Duration = Duration::from_secs(2);

/// Shows what Sidestep does: on each node, with each pod, and why.
///
/// Where an agent's socket is (on a node, and in the agent's container) it shows that agent's pods. Elsewhere it asks every agent
/// of the cluster, by exec in the agent's pod, and shows the nodes; with -n or -A the pods; or one node or pod.
///
/// Exit codes: 0 all is well; 2 a pod waits, or an agent is missing, not ready or does not answer; 1 for everything else.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidestep status                                 # the nodes of the cluster
  sidestep status -A                              # its pods: accelerated, waiting and why, left alone and why
  sidestep status -n shop --watch
  sidestep status pod/web-0 -n shop
  sidestep status node/worker-1 -o json
  sidestep status -A -o json | jq '.pods[] | select(.state == \"left\")'
  sidestep status --socket /run/sidestep/agent.sock")]
pub(crate) struct Args {
    /// A node or a pod of the cluster, as node/NAME or pod/NAME
    #[arg(value_name = "WHAT")]
    target: Option<Target>,

    /// The pods of this namespace; with pod/NAME, the pod's
    #[arg(long, short = 'n', value_name = "NAME")]
    namespace: Option<String>,

    /// The pods of all namespaces
    #[arg(long, short = 'A', conflicts_with_all = ["namespace", "target"])]
    all_namespaces: bool,

    /// Ask the agent on this Unix socket, and no cluster
    #[arg(long, value_name = "PATH", conflicts_with_all = ["target", "namespace", "all_namespaces"])]
    socket: Option<PathBuf>,

    /// Output format
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,

    /// Look again every two seconds, until it is interrupted
    #[arg(long, short)]
    watch: bool,

    /// The namespace that Sidestep is installed in
    #[arg(long, value_name = "NAME", default_value = cluster::NAMESPACE)]
    sidestep_namespace: String,
}

/// One object of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Node(String),
    Pod(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some(("node" | "nodes" | "no", name)) if !name.is_empty() => {
                Ok(Self::Node(name.to_owned()))
            }
            Some(("pod" | "pods" | "po", name)) if !name.is_empty() => {
                Ok(Self::Pod(name.to_owned()))
            }
            _ => Err("want node/NAME or pod/NAME".to_owned()),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Output {
    /// A table for people
    Text,
    /// JSON for programs
    Json,
}

/// What is shown.
#[derive(Debug, PartialEq, Eq)]
enum Scope {
    /// One agent, by its socket.
    Agent(PathBuf),
    Nodes,
    Node(String),
    /// The pods of a namespace, or of all.
    Pods(Option<String>),
    Pod {
        namespace: String,
        name: String,
    },
}

/// What there is to show, in every format; and whether it needs attention.
struct Shown {
    text: String,
    json: Value,
    attention: bool,
}

impl Args {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let scope = self.scope(Path::new(SOCKET).exists());
        let mut has_shown = false;
        loop {
            match self.look(&scope).await {
                Ok(shown) => {
                    self.print(&shown);
                    has_shown = true;
                    if !self.watch {
                        return Ok(if shown.attention {
                            ExitCode::from(ATTENTION)
                        } else {
                            ExitCode::SUCCESS
                        });
                    }
                }
                // Who watches an upgrade wants to see its end, too.
                Err(error) if has_shown => eprintln!("sidestep: {error:#}; looking again"),
                Err(error) => return Err(error),
            }
            sleep(INTERVAL).await;
        }
    }

    async fn look(&self, scope: &Scope) -> anyhow::Result<Shown> {
        match scope {
            Scope::Agent(socket) => Ok(agent::shown(&sidestep_agent_api::ask(socket).await?)),
            scope => self.of_the_cluster(scope).await,
        }
    }

    fn scope(&self, is_on_a_node: bool) -> Scope {
        match (&self.socket, &self.target) {
            (Some(socket), _) => Scope::Agent(socket.clone()),
            (None, Some(Target::Node(name))) => Scope::Node(name.clone()),
            (None, Some(Target::Pod(name))) => Scope::Pod {
                namespace: self.namespace.clone().unwrap_or("default".to_owned()),
                name: name.clone(),
            },
            (None, None) if self.all_namespaces => Scope::Pods(None),
            (None, None) if self.namespace.is_some() => Scope::Pods(self.namespace.clone()),
            (None, None) if is_on_a_node => Scope::Agent(SOCKET.into()),
            (None, None) => Scope::Nodes,
        }
    }

    async fn of_the_cluster(&self, scope: &Scope) -> anyhow::Result<Shown> {
        let client = cluster::client()
            .await
            .with_context(|| format!("no agent's socket is here ({SOCKET})"))?;
        let view = Box::pin(View::of(&client, &self.sidestep_namespace, scope));
        let view = cluster::awaited("asking the agents", view).await?;
        match scope {
            Scope::Node(name) => nodes::one(&view, name),
            Scope::Pods(_) => Ok(pods::all(&view)),
            Scope::Pod { namespace, name } => pods::one(&view, namespace, name),
            Scope::Nodes | Scope::Agent(_) => Ok(nodes::all(&view)),
        }
    }

    fn print(&self, shown: &Shown) {
        match self.output {
            Output::Json if self.watch => println!("{}", shown.json),
            Output::Json => println!("{:#}", shown.json),
            // It takes the place of what was there before.
            Output::Text if self.watch && stdout().is_terminal() => {
                print!("\x1b[H\x1b[2J{}", shown.text);
            }
            Output::Text => print!("{}", shown.text),
        }
    }
}

/// What an enum's value is called in JSON, which is what people see, too.
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    let word = json!(value);
    word.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn scope(words: &str, is_on_a_node: bool) -> Scope {
        let words = ["status"].into_iter().chain(words.split_whitespace());
        Cli::try_parse_from(words)
            .unwrap_or_else(|error| panic!("{error}"))
            .args
            .scope(is_on_a_node)
    }

    #[test]
    fn on_a_node_its_agent_is_shown_unless_something_else_is_asked_for() {
        assert_eq!(scope("", true), Scope::Agent(SOCKET.into()));
        assert_eq!(scope("", false), Scope::Nodes);
        assert_eq!(scope("--socket /x", false), Scope::Agent("/x".into()));
        for on_a_node in [true, false] {
            assert_eq!(scope("-A", on_a_node), Scope::Pods(None));
            let shop = Scope::Pods(Some("shop".to_owned()));
            assert_eq!(scope("-n shop", on_a_node), shop);
            let node = Scope::Node("one".to_owned());
            assert_eq!(scope("node/one", on_a_node), node);
            let pod = Scope::Pod {
                namespace: "shop".to_owned(),
                name: "web-0".to_owned(),
            };
            assert_eq!(scope("pod/web-0 -n shop", on_a_node), pod);
        }
    }

    #[test]
    fn what_is_neither_node_nor_pod_is_refused() {
        for words in [
            "web-0",
            "pod/",
            "deployment/web",
            "-A -n shop",
            "node/one --socket /x",
        ] {
            let all = ["status"].into_iter().chain(words.split_whitespace());
            assert!(Cli::try_parse_from(all).is_err(), "{words}");
        }
    }
}
