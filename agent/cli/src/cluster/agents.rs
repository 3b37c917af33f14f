//! Agents, asked through the API server: `sidestep status` runs in the agent's container, so nothing but the right to exec is
//! needed, and the agent opens no port.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use sidestep_agent_api::{Flows, SOCKET, Status};
use tokio::time::timeout;

use super::each;
use super::exec::{Ran, exec};

/// Selects the agents: their pods and their DaemonSet.
pub(crate) const AGENTS: &str = "app.kubernetes.io/name=sidestep-agent";

/// Agents that are asked at the same time.
const AT_ONCE: usize = 16;

/// How long one may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An agent's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentPod {
    /// Its name.
    pub(crate) name: String,
    /// Its node.
    pub(crate) node: String,
    /// Its image.
    pub(crate) image: String,
    /// Why it does not run, if so.
    pub(crate) down: Option<String>,
}

/// What an agent told of itself; or why it did not.
pub(crate) type Answer = Result<Status, String>;

impl AgentPod {
    /// `None` for a pod that goes, or is on no node yet: its node has another, or none.
    fn of(pod: &Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        if pod.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let image = spec
            .containers
            .first()
            .and_then(|first| first.image.clone());
        Some(Self {
            name: pod.name_any(),
            node: spec.node_name.clone()?,
            image: image.unwrap_or_default(),
            down: down(pod),
        })
    }
}

/// Why a pod's containers do not run.
fn down(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = [&status.init_container_statuses, &status.container_statuses];
    let waiting = all.into_iter().flatten().flatten().find_map(|one| {
        let waiting = one.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone()?;
        let message = waiting.message.as_ref();
        Some(message.map_or(reason.clone(), |message| format!("{reason}: {message}")))
    });
    waiting.or_else(|| {
        let phase = status.phase.as_deref()?;
        (phase != "Running").then(|| format!("its phase is {phase}"))
    })
}

/// The agents' pods that are on a node.
pub(crate) async fn agent_pods(client: &Client, namespace: &str) -> kube::Result<Vec<AgentPod>> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut pods = Vec::new();
    let selected = ListParams::default().labels(AGENTS);
    each(&api, selected, |pod| pods.extend(AgentPod::of(&pod))).await?;
    pods.sort_by(|one, other| one.node.cmp(&other.node));
    Ok(pods)
}

/// Each agent with what it told, a few at a time, and each within a time limit.
pub(crate) async fn answers(
    client: &Client,
    namespace: &str,
    pods: Vec<AgentPod>,
) -> Vec<(AgentPod, Answer)> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let asked = stream::iter(pods).map(|pod| {
        let api = api.clone();
        async move {
            let command = ["sidestep", "status", "--socket", SOCKET, "--output", "json"];
            let answer = ask(&api, &pod, &command).await;
            (pod, answer)
        }
    });
    asked.buffered(AT_ONCE).collect().await
}

/// The connections of a pod, as the agent of its node tells them; or why it does not.
pub(crate) async fn flows(
    client: &Client,
    namespace: &str,
    agent: &AgentPod,
    (pod_namespace, pod): (&str, &str),
) -> Result<Flows, String> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let target = format!("pod/{pod}");
    let command = [
        "sidestep",
        "flows",
        &target,
        "--namespace",
        pod_namespace,
        "--socket",
        SOCKET,
        "--output",
        "json",
    ];
    ask(&api, agent, &command).await
}

/// What a command in an agent's container tells, within a time limit; or why it tells nothing.
async fn ask<T: DeserializeOwned>(
    api: &Api<Pod>,
    agent: &AgentPod,
    command: &[&str],
) -> Result<T, String> {
    let pod = &agent.name;
    if let Some(why) = &agent.down {
        return Err(format!("its pod {pod} does not run: {why}"));
    }
    let seconds = PATIENCE.as_secs();
    timeout(PATIENCE, told(api, pod, command))
        .await
        .unwrap_or_else(|_| Err(format!("its pod {pod} did not answer within {seconds} s")))
}

async fn told<T: DeserializeOwned>(
    api: &Api<Pod>,
    pod: &str,
    command: &[&str],
) -> Result<T, String> {
    let ran = exec(api, pod, "agent", command)
        .await
        .map_err(|why| format!("exec in its pod {pod}: {why}"))?;
    let Ran { told, said, status } = ran;
    if told.trim().is_empty() {
        let said = Some(said.trim().to_owned()).filter(|said| !said.is_empty());
        let why = said
            .or(status)
            .unwrap_or_else(|| "it says nothing".to_owned());
        return Err(format!("its pod {pod}: {}", without_request(&why)));
    }
    serde_json::from_str(&told)
        .map_err(|error| format!("its pod {pod} answers as another version does: {error}"))
}

/// What an API server says that does not reach a kubelet, without the request, which is long and tells nothing.
fn without_request(said: &str) -> String {
    let parts = said.split_once("Post \"").and_then(|(before, rest)| {
        let (_, after) = rest.split_once("\": ")?;
        Some(format!("{before}{after}"))
    });
    parts.unwrap_or_else(|| said.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(changes: &serde_json::Value) -> Pod {
        let mut pod = json!({
            "metadata": {"name": "sidestep-agent-x"},
            "spec": {"nodeName": "one", "containers": [{"name": "agent", "image": "r/agent:1"}]},
            "status": {"phase": "Running"},
        });
        for (path, value) in changes.as_object().expect("an object") {
            let (part, field) = path.split_once('.').expect("a path");
            pod[part][field] = value.clone();
        }
        serde_json::from_value(pod).expect("a pod")
    }

    #[test]
    fn an_agent_that_goes_or_is_nowhere_counts_for_no_node() {
        let there = AgentPod::of(&pod(&json!({}))).expect("it is there");
        assert_eq!(
            (there.node.as_str(), there.image.as_str(), there.down),
            ("one", "r/agent:1", None)
        );
        for gone in [
            json!({"metadata.deletionTimestamp": "2026-11-30T10:00:00Z"}),
            json!({"spec.nodeName": null}),
        ] {
            assert_eq!(AgentPod::of(&pod(&gone)), None);
        }
    }

    #[test]
    fn what_keeps_an_agent_from_running_is_told() {
        let waiting = json!({"status.containerStatuses": [{
            "name": "agent", "ready": false, "image": "", "imageID": "", "restartCount": 3,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
        }]});
        let why = down(&pod(&waiting));
        assert_eq!(why.as_deref(), Some("ImagePullBackOff: no such image"));
        let why = down(&pod(&json!({"status.phase": "Pending"})));
        assert_eq!(why.as_deref(), Some("its phase is Pending"));
    }
}
