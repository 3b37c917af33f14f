//! The same on a node whose kernel was started with `ipv6.disable=1 lockdown=confidentiality`.

use std::fs;

use sidestep_agent::status::Status;
use sidestep_kit::{needs, net::Namespace};

use super::{Container, api, bundle::config, confined, said_when_ready, status};

/// Securityfs is not in the container, so the agent has to ask the kernel.
#[needs(self::hardened_node)]
fn on_a_hardened_node_the_agent_is_ready_on_ipv4_without_the_shortcut() {
    let pod = Namespace::new("agent");
    api::serve(&pod);
    let mut agent = Container::start("agent", &config(&pod));
    let said = said_when_ready(&mut agent);
    let off = "shortcut off: kernel lockdown: programs may not read the kernel's memory";
    assert!(said.contains(off), "{said}");
    let log = agent.log();
    for words in [
        "listening on IPv4 alone",
        "what proofs and checks do over it is left out",
        "the ids of setuid programs are taken from their real ids",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let status: Status = serde_json::from_str(&status(&["-o", "json"])).expect("a status");
    confined(status.pid);
    agent.end();
}

/// A machine as `tests/qemu/smoke.sh` starts it.
fn hardened_node() -> Result<(), String> {
    super::ordinary_node()?;
    let line = fs::read_to_string("/proc/cmdline").expect("/proc is mounted");
    let missing = ["ipv6.disable=1", "lockdown=confidentiality"]
        .into_iter()
        .find(|word| !line.split_whitespace().any(|other| other == *word));
    missing.map_or(Ok(()), |word| {
        Err(format!("the kernel was started without {word}"))
    })
}
