//! `sidestep uninstall`.

mod plan;
mod registration;

use std::{
    collections::HashSet,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Client, ResourceExt as _,
    api::{Api, EvictParams, ListParams},
};
use sidestep_contract::keys;
use tokio::time::sleep;

use self::{
    plan::{Action, Controller, Plan},
    registration::Registration,
};

/// Between looks at what is left.
const PAUSE: Duration = Duration::from_secs(2);

/// Prepares a cluster for the removal of Sidestep: afterwards no pod depends on it, and Helm or kubectl may delete the rest.
///
/// An accelerated pod has no other redirection, so the command refuses while there is one. With --roll-back it first removes
/// the webhook's registration, so that new pods get Istio's own redirection, and then evicts the accelerated pods, so that
/// their controllers replace them. It respects disruption budgets. It does not evict a Job's pods, nor pods whose template
/// holds a gate (from `sidestep mutate`), which would come back as they are: apply such a template without the gate.
///
/// If the registration comes back meanwhile, as a GitOps controller brings it, the command ends and names who brought it: set the
/// chart's `enrolment: none` there first, which makes plain pods of Istio's by itself.
///
/// Exit codes: 0 if no accelerated pod is left; 2 if some are, each named with the reason; 1 for everything else.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidestep uninstall                            # which pods depend on Sidestep
  sidestep uninstall --roll-back                # replace them, then
  helm uninstall sidestep -n sidestep-system")]
pub(crate) struct Args {
    /// Replace the accelerated pods by pods with Istio's own redirection
    #[arg(long)]
    roll_back: bool,

    /// Name of the MutatingWebhookConfiguration
    #[arg(long, value_name = "NAME", default_value = "sidestep-webhook")]
    webhook_configuration: String,

    /// Time that the pods may take to go
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
        let client = crate::cluster::client().await?;
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
        let registration = Registration::new(&client, &webhook_configuration);
        registration.remove().await?;
        let timeout = Duration::from_secs(timeout);
        let may_evict = roll_back;
        let left = replace(&client, &registration, may_evict, timeout).await?;
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

/// The pods that depend on Sidestep. Those whose containers have ended do not.
async fn accelerated(client: &Client) -> anyhow::Result<Vec<Pod>> {
    let all: Api<Pod> = Api::all(client.clone());
    let running = "status.phase!=Succeeded,status.phase!=Failed";
    let selected = ListParams::default()
        .labels(keys::ACCELERATED)
        .fields(running);
    let pods = all
        .list(&selected)
        .await
        .context("listing accelerated pods")?;
    Ok(pods.items)
}

/// Evicts pods until none is left that may be; the answer is the others, and why. Nothing is believed before the webhook's
/// removal has reached every API server.
async fn replace(
    client: &Client,
    registration: &Registration,
    may_evict: bool,
    timeout: Duration,
) -> anyhow::Result<Vec<(Pod, String)>> {
    let began = Instant::now();
    let mut plan = Plan::default();
    let mut told = HashSet::new();
    loop {
        let late = began.elapsed() >= timeout;
        registration.stays_removed().await?;
        let pods = match accelerated(client).await {
            Ok(pods) => pods,
            Err(error) if late => return Err(error),
            Err(error) => {
                eprintln!("{error:#}; trying again");
                sleep(PAUSE).await;
                continue;
            }
        };
        plan.look(pods.iter().filter_map(known), began.elapsed());
        let mut left = Vec::new();
        let mut waits = false;
        for pod in pods {
            let owner = controller(&pod);
            let uid = pod.metadata.uid.as_deref().unwrap_or_default();
            let why = match plan.action(uid, owner.as_ref(), began.elapsed()) {
                Action::Leave(why) => {
                    left.push((pod, why));
                    continue;
                }
                Action::Evict if !may_evict => {
                    let why = "it came meanwhile: replace it by plain Istio's with --roll-back";
                    left.push((pod, why.to_owned()));
                    continue;
                }
                Action::Wait => None,
                Action::Evict => {
                    let why = evict(client, &pod).await;
                    if let (None, Some(owner)) = (&why, owner)
                        && told.insert(pod.uid())
                    {
                        println!("evicted      {} ({owner} makes another)", name(&pod));
                    }
                    why
                }
            };
            waits = true;
            left.push((
                pod,
                why.unwrap_or_else(|| "it takes long to end".to_owned()),
            ));
        }
        let settled = began.elapsed() > plan::SETTLE;
        let done = if waits { late } else { settled };
        if done {
            return Ok(left);
        }
        sleep(PAUSE).await;
    }
}

/// Why it may not go now, if so: whatever the API server says of one pod is no reason to leave the others.
async fn evict(client: &Client, pod: &Pod) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let namespace = pod.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    match api.evict(&pod.name_any(), &EvictParams::default()).await {
        Ok(_) => None,
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        Err(kube::Error::Api(status)) => Some(status.message),
        Err(error) => Some(error.to_string()),
    }
}

fn known(pod: &Pod) -> Option<(&str, Controller)> {
    Some((pod.metadata.uid.as_deref()?, controller(pod)?))
}

fn controller(pod: &Pod) -> Option<Controller> {
    let mut owners = pod.owner_references().iter();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    Some(Controller {
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    })
}

fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}
