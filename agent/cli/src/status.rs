//! `sidestep status`.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use clap::ValueEnum;
use sidestep_agent_api::{PodState, PodStatus, SOCKET, Status};

/// Shows every pod of the node: its state, its policy in short, and what each row of the rules decided.
///
/// Exits with 0 if every pod is armed, active or left to Istio; with 2 if one is pending or a file cannot be used; with
/// 1 if the agent does not answer.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Unix socket of the agent
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,

    /// Form of the answer
    #[arg(long, short, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

impl Args {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let Self { socket, output } = self;
        let status = sidestep_agent_api::ask(&socket).await?;
        match output {
            Output::Text => print!("{}", text(&status)),
            Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        }
        let pending = status.pods.iter().any(|p| p.state == PodState::Pending);
        Ok(if pending || !status.errors.is_empty() {
            ExitCode::from(2)
        } else {
            ExitCode::SUCCESS
        })
    }
}

fn text(status: &Status) -> String {
    let mut out = format!(
        "agent {} (pid {}), pods' cgroup {}\n",
        status.version,
        status.pid,
        status.cgroup.display()
    );
    let shortcut = &status.shortcut;
    let _infallible = match &shortcut.reason {
        None => writeln!(out, "shortcut on, {} ends of connections", shortcut.ends),
        Some(why) => writeln!(out, "shortcut off: {why}"),
    };
    let parts = [
        ("sockets of applications", &shortcut.not_from_applications),
        (
            "delivery into applications",
            &shortcut.not_into_applications,
        ),
    ];
    for (part, why) in parts {
        if let (None, Some(why)) = (&shortcut.reason, why) {
            let _infallible = writeln!(out, "shortcut: {part} left to TCP: {why}");
        }
    }
    for pod in &status.pods {
        line(&mut out, pod);
    }
    if status.pods.is_empty() {
        out.push_str("no pods: put Pod files into the agent's folder (--pods)\n");
    }
    for error in &status.errors {
        let _infallible = writeln!(out, "error: {error}");
    }
    for repair in &status.repairs {
        let _infallible = writeln!(out, "restored: {repair}");
    }
    out
}

fn line(out: &mut String, pod: &PodStatus) {
    let state = pod.state.name();
    let _infallible = write!(out, "\n{}/{}  {state}", pod.namespace, pod.name);
    if let Some(us) = pod.programmed_us {
        let _infallible = write!(out, "  programmed in {}.{:03} ms", us / 1000, us % 1000);
    }
    out.push('\n');
    let mut field = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            let _infallible = writeln!(out, "  {name:<8}{value}");
        }
    };
    field("reason", pod.reason.as_deref());
    field("netns", pod.netns.as_deref());
    field("policy", pod.policy.as_deref());
    let rows: Vec<String> = pod
        .rows
        .iter()
        .map(|(row, n)| format!("{row} {n}"))
        .collect();
    field(
        "rows",
        Some(rows.join(", ").as_str()).filter(|r| !r.is_empty()),
    );
}
