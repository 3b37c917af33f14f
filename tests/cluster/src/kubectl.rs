//! kubectl, run in the cluster's network.

use std::{
    fs::File,
    io::Write,
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use anyhow::{Context, ensure};

use super::place::Place;

/// The administrator of one cluster.
#[derive(Debug, Clone)]
pub struct Kubectl {
    place: Place,
    program: PathBuf,
}

impl Kubectl {
    /// The administrator of the cluster at this place.
    pub fn new(place: &Place) -> anyhow::Result<Self> {
        Ok(Self {
            place: place.clone(),
            program: place.program("kubectl")?,
        })
    }

    /// A kubectl command.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = in_network(&self.place, &self.program)?;
        command.args(arguments);
        Ok(command)
    }

    /// Whether a command succeeds.
    pub fn succeeds(&self, arguments: &[&str]) -> bool {
        self.output(arguments).is_ok()
    }

    /// What a command prints; an error if it fails.
    pub fn output(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments, "")?;
        check(&output, arguments)?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Gives a command its input and returns all that it says.
    pub fn run(&self, arguments: &[&str], input: &str) -> anyhow::Result<Output> {
        run(self.command(arguments)?, input)
    }

    /// Applies manifests, YAML or JSON, server-side; what kubectl said, warnings included.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        let output = self.run(&arguments, manifests)?;
        check(&output, &arguments)?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }
}

/// A program run in the cluster's network, as its administrator, with the caller's own files.
pub fn in_network(place: &Place, program: &Path) -> anyhow::Result<Command> {
    let path = place.netns();
    let network =
        File::open(&path).with_context(|| format!("no cluster {} is up", place.name()))?;
    let mut command = Command::new(program);
    // SAFETY: setns takes a descriptor, which the closure keeps open, and touches no memory of ours.
    unsafe {
        command.pre_exec(
            move || match libc::setns(network.as_raw_fd(), libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            },
        );
    }
    command.env("KUBECONFIG", place.kubeconfig());
    command.env("KUBECACHEDIR", place.file("cache"));
    Ok(command)
}

/// Runs a command with this input to its end.
pub fn run(mut command: Command, input: &str) -> anyhow::Result<Output> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    // A command that does not read its input may be gone.
    let _ = child
        .stdin
        .take()
        .context("its input is piped")?
        .write_all(input.as_bytes());
    Ok(child.wait_with_output()?)
}

fn check(output: &Output, arguments: &[&str]) -> anyhow::Result<()> {
    ensure!(
        output.status.success(),
        "kubectl {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
