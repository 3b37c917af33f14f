//! Reads the facts. What cannot be read is a fact, too.

mod certificates;
mod installed;
mod mesh;
mod rights;
mod trials;

use anyhow::Context;
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ListParams};
use sidestep_contract::reporter;

use super::facts::{EventFact, Facts, Known};
use super::finding::Stage;
use crate::cluster;

/// What to look at.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) stage: Stage,
    /// The namespace that Sidestep is installed in.
    pub(super) home: String,
    /// Where a pod that looks injected is tried.
    pub(super) probe: String,
    /// Where a plain pod is tried; otherwise in the first namespace that is injected.
    pub(super) trial: Option<String>,
}

/// Reads everything, as much as possible at once. An error means that the API server does not answer.
pub(super) async fn gather(client: &Client, scope: &Scope) -> anyhow::Result<Facts> {
    let home = &scope.home;
    let kubernetes = version(client).await?;
    let (rights, nodes, mesh, installed) = tokio::join!(
        rights::rights(client, scope),
        cluster::nodes(client),
        mesh::mesh(client),
        installed::installed(client, home),
    );
    let (probe, trial, agents, pods, events) = tokio::join!(
        trials::probe(client, scope),
        trials::trial(client, scope),
        agents(client, scope),
        pods(client, scope),
        events(client),
    );
    Ok(Facts {
        stage: scope.stage,
        now: Timestamp::now(),
        home: home.clone(),
        kubernetes,
        rights,
        nodes: known(nodes),
        istiods: mesh.istiods,
        istio_cni: mesh.istio_cni,
        registrations: mesh.registrations,
        namespace: installed.namespace,
        webhook: installed.webhook,
        daemonset: installed.daemonset,
        certificates: installed.certificates,
        policies: installed.policies,
        lease: installed.lease,
        probe,
        trial,
        agents,
        pods,
        events,
    })
}

/// A fact, or what the API server says about it.
fn known<T>(result: kube::Result<T>) -> Known<T> {
    result.map_err(|error| match error {
        kube::Error::Api(status) => status.message,
        other => other.to_string(),
    })
}

async fn version(client: &Client) -> anyhow::Result<(u32, u32)> {
    let info = client.apiserver_version().await;
    let info = info.context("the API server does not answer")?;
    let number = |text: &str| {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        digits.parse().ok()
    };
    let version = number(&info.major).zip(number(&info.minor));
    version.with_context(|| format!("the API server's version is {}.{}", info.major, info.minor))
}

async fn agents(
    client: &Client,
    scope: &Scope,
) -> Known<Vec<(cluster::AgentPod, cluster::Answer)>> {
    if scope.stage == Stage::Before {
        return Ok(Vec::new());
    }
    let pods = known(cluster::agent_pods(client, &scope.home).await)?;
    Ok(cluster::answers(client, &scope.home, pods).await)
}

async fn pods(client: &Client, scope: &Scope) -> Known<Vec<cluster::SeenPod>> {
    match scope.stage {
        Stage::Before => Ok(Vec::new()),
        Stage::After => known(cluster::seen(client, None).await),
    }
}

async fn events(client: &Client) -> Known<Vec<EventFact>> {
    let api: Api<Event> = Api::all(client.clone());
    let mut events = Vec::new();
    for reporter in [reporter::AGENT, reporter::WEBHOOK] {
        let selected = format!("type=Warning,reportingComponent={reporter}");
        let selected = ListParams::default().fields(&selected);
        known(cluster::each(&api, selected, |event| events.push(event_fact(event))).await)?;
    }
    Ok(events)
}

fn event_fact(event: Event) -> EventFact {
    let series = event.series.and_then(|series| series.last_observed_time);
    let last = event.last_timestamp.map(|time| time.0);
    let about = event.involved_object;
    let parts = [about.kind, about.namespace, about.name];
    EventFact {
        reason: event.reason.unwrap_or_default(),
        object: parts.into_iter().flatten().collect::<Vec<_>>().join("/"),
        note: event.message.unwrap_or_default(),
        at: series.or(event.event_time).map(|time| time.0).or(last),
    }
}
