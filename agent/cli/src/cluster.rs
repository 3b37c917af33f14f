//! The cluster as people's commands read it: its client, lists by pages, agents by exec, and the pods that concern Sidestep.

mod agents;
mod exec;
mod nodes;
mod pages;
mod pods;

use std::io::{IsTerminal as _, stderr};
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use kube::{Client, Config};
use tokio::time::timeout;

pub(crate) use self::agents::{AGENTS, AgentPod, Answer, agent_pods, answers, flows};
pub(crate) use self::exec::exec;
pub(crate) use self::nodes::{SeenNode, nodes};
pub(crate) use self::pages::each;
pub(crate) use self::pods::{Seen, SeenPod, seen};

/// The namespace that Sidestep is installed in, unless told otherwise.
pub(crate) const NAMESPACE: &str = "sidestep-system";

/// Label of all objects that belong to Sidestep.
pub(crate) const OURS: &str = "app.kubernetes.io/part-of=sidestep";

/// How long a command may be silent before it says what it waits for.
const SILENCE: Duration = Duration::from_secs(1);

/// A client of the API server that kubectl would ask.
pub(crate) async fn client() -> anyhow::Result<Client> {
    client_of(true).await
}

/// A client that asks once, and passes on what it is told: by default kube asks again for half a minute where a server says that it
/// is not available.
pub(crate) async fn client_that_asks_once() -> anyhow::Result<Client> {
    client_of(false).await
}

async fn client_of(asks_again: bool) -> anyhow::Result<Client> {
    // kube asks rustls for a provider of cryptography, and chooses none.
    let _installed_already = rustls::crypto::ring::default_provider().install_default();
    let config = Config::infer().await;
    let mut config = config.context("no API server: is there a kubeconfig?")?;
    config.default_retry = asks_again;
    Ok(Client::try_from(config)?)
}

/// The result of `work`. If it takes longer than a second, a terminal shows what is awaited.
pub(crate) async fn awaited<T>(what: &str, work: impl Future<Output = T>) -> T {
    if !stderr().is_terminal() {
        return work.await;
    }
    let mut work = pin!(work);
    if let Ok(done) = timeout(SILENCE, &mut work).await {
        return done;
    }
    eprint!("{what} …");
    let done = work.await;
    eprint!("\r\x1b[K");
    done
}
