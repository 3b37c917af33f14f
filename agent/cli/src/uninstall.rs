//! `sidestep uninstall`.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Pod};
use kube::{
    Client, ResourceExt as _,
    api::{Api, DeleteParams, EvictParams, ListParams},
};
use sidestep_contract::keys;
use tokio::time::sleep;

/// Between looks at what is left.
const PAUSE: Duration = Duration::from_secs(2);

/// Prepares a cluster for the removal of Sidestep: afterwards no pod depends on it, and Helm or kubectl may delete the rest.
///
/// A pod that runs with Sidestep has no other redirection, so this refuses while there is one. With --roll-back it first
/// takes the webhook out of admission, so that new pods are plain Istio's, and then evicts the accelerated pods, so that
/// their controllers make them anew. Disruption budgets are respected.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Replace the accelerated pods by plain Istio's
    #[arg(long)]
    roll_back: bool,

    /// Name of the webhook's registration
    #[arg(long, value_name = "NAME", default_value = "sidestep-webhook")]
    webhook_configuration: String,

    /// How long the pods may take to go
    #[arg(long, value_name = "SECONDS", default_value = "600")]
    timeout: u64,
}

impl Args {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let Self {
            roll_back,
            webhook_configuration,
            timeout,
        } = self;
        // kube asks rustls for a provider of cryptography, and chooses none.
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_default()
            .await
            .context("no API server: is there a kubeconfig?")?;
        let pods = accelerated(&client).await?;
        if !roll_back && !pods.is_empty() {
            for pod in &pods {
                println!("accelerated  {}", name(pod));
            }
            bail!(
                "{} pods depend on Sidestep: replace them by plain Istio's with --roll-back",
                pods.len()
            );
        }
        remove_from_admission(&client, &webhook_configuration).await?;
        let deadline = Instant::now() + Duration::from_secs(timeout);
        let left = replace(&client, deadline).await?;
        if left.is_empty() {
            println!("no pod depends on Sidestep any more: remove its release (helm uninstall)");
            return Ok(ExitCode::SUCCESS);
        }
        for (pod, why) in &left {
            println!("left         {}: {why}", name(pod));
        }
        Ok(ExitCode::from(2))
    }
}

async fn accelerated(client: &Client) -> anyhow::Result<Vec<Pod>> {
    let all: Api<Pod> = Api::all(client.clone());
    let selected = ListParams::default().labels(keys::ACCELERATED);
    let pods = all
        .list(&selected)
        .await
        .context("listing accelerated pods")?;
    Ok(pods.items)
}

async fn remove_from_admission(client: &Client, configuration: &str) -> anyhow::Result<()> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    match api.delete(configuration, &DeleteParams::default()).await {
        Ok(_) => {
            println!("new pods are plain Istio's: removed webhook configuration {configuration}");
        }
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => {
            return Err(error)
                .with_context(|| format!("removing webhook configuration {configuration}"));
        }
    }
    Ok(())
}

/// Evicts pods until none is left that may be; the answer is the others, and why.
async fn replace(client: &Client, deadline: Instant) -> anyhow::Result<Vec<(Pod, String)>> {
    let mut told = Vec::new();
    loop {
        let mut left = Vec::new();
        let mut waits = false;
        for pod in accelerated(client).await? {
            let Some(owner) = owner(&pod) else {
                left.push((
                    pod,
                    "it has no controller that would make it again; delete it and create it anew"
                        .to_owned(),
                ));
                continue;
            };
            waits = true;
            let why = evict(client, &pod).await?;
            if why.is_none() && !told.contains(&pod.uid()) {
                println!("evicted      {} ({owner} makes another)", name(&pod));
                told.push(pod.uid());
            }
            let why = why.unwrap_or_else(|| "it takes long to end".to_owned());
            left.push((pod, why));
        }
        if !waits || Instant::now() >= deadline {
            return Ok(left);
        }
        sleep(PAUSE).await;
    }
}

/// Why it may not go now, if so.
async fn evict(client: &Client, pod: &Pod) -> anyhow::Result<Option<String>> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    match api.evict(&pod.name_any(), &EvictParams::default()).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 429 => Ok(Some(status.message)),
        Err(error) => Err(error).with_context(|| format!("evicting {}", name(pod))),
    }
}

fn owner(pod: &Pod) -> Option<String> {
    let mut owners = pod.owner_references().iter();
    let controller = owners.find(|owner| owner.controller == Some(true))?;
    Some(format!("{}/{}", controller.kind, controller.name))
}

fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}
