//! Istio's own program, which writes the rules of a policy into a namespace, and what the kernel then has.

use std::{fs, io::Write, path::PathBuf, process::Command};

use serde::{Deserialize, Serialize};
use sidestep_kit::{
    net::{Namespace, run},
    parts,
};
use sidestep_walker::{Rules, Unknown};

use crate::policy::Written;

/// The rules of a policy as the kernel gives them back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Loaded {
    /// What `iptables-save` and `ip6tables-save` print.
    Iptables {
        /// IPv4
        v4: String,
        /// IPv6
        v6: String,
    },
    /// What `nft -j list ruleset` prints.
    Nftables(String),
    /// Istio's program failed, with this as its last words. Its pod would not start.
    Refused(String),
}

impl Loaded {
    /// The rules, to be walked; none where there are none.
    pub fn rules(&self) -> Option<Result<Rules, Unknown>> {
        match self {
            Self::Iptables { v4, v6 } => Some(Rules::of_iptables(v4, v6)),
            Self::Nftables(json) => Some(Rules::of_nftables(json)),
            Self::Refused(_) => None,
        }
    }
}

/// The agent of Istio's, whose subcommand `istio-iptables` is what an `istio-init` runs.
fn program() -> PathBuf {
    parts::program("pilot-agent")
}

/// Runs it in a namespace that has no rules, with this `resolv.conf`.
pub fn write_rules(namespace: &Namespace, policy: &Written, name_servers: &[&str]) -> Loaded {
    let mut resolver = tempfile::NamedTempFile::new().expect("a temporary file");
    for server in name_servers {
        writeln!(resolver, "nameserver {server}").expect("room for a few lines");
    }
    // The file is in place of the machine's for this process alone.
    let script = r#"mount --bind "$1" /etc/resolv.conf; shift; exec "$@""#;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut command = namespace.command("unshare");
    command
        .args(["--mount", "sh", "-euc", script, "sh"])
        .arg(resolver.path())
        .arg(program())
        .arg("istio-iptables")
        .args(policy.arguments())
        .env_clear()
        .env("PATH", path)
        // Where a machine has both, the kernel's newer ones: those are read below.
        .env("FORCE_IPTABLES_BINARY", "nft")
        .envs(policy.variables());
    let output = command.output().expect("unshare can be run");
    if !output.status.success() {
        let said = [&output.stdout[..], &output.stderr].concat();
        return Loaded::Refused(reason(&String::from_utf8_lossy(&said)));
    }
    if policy.is_native() {
        Loaded::Nftables(read(
            namespace.command("nft").args(["-j", "list", "ruleset"]),
        ))
    } else {
        let save = |program| read(namespace.command(program).args(["-t", "nat"]));
        Loaded::Iptables {
            v4: save("iptables-nft-save"),
            v6: save("ip6tables-nft-save"),
        }
    }
}

fn read(command: &mut Command) -> String {
    String::from_utf8(run(command).stdout).expect("rules are text")
}

/// The line of its log that says why, without the time and the place in what it wrote.
fn reason(log: &str) -> String {
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines().find(|line| ["error", "Error"].iter().any(|word| line.contains(word)));
    let line = error.or_else(|| lines().next_back()).unwrap_or("nothing");
    let words = ["Error: ", "error\t"]
        .iter()
        .find_map(|it| line.split_once(it));
    words.map_or(line, |(_, words)| words).to_owned()
}

/// A folder for what a run keeps, beside what cargo builds.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let folder = parts::workspace().join("target").join(name);
    fs::create_dir_all(&folder).expect("a folder of ours");
    folder
}
