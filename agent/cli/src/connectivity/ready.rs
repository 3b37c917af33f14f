//! Waits until the pods are ready; tells what is in the way if they do not become so.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::ResourceExt as _;
use kube::api::ListParams;
use sidestep_contract::keys;
use sidestep_contract::waiting::Place;
use tokio::time::sleep;

use super::plan::Member;
use super::room::Room;
use super::say;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// Events that are told of a pod, the last ones.
const EVENTS: usize = 3;

/// Waits until all pods are ready, and says so of each. They are returned by name.
pub(super) async fn awaited(
    room: &Room,
    members: &[Member],
    patience: Duration,
) -> anyhow::Result<BTreeMap<String, Pod>> {
    let begun = Instant::now();
    let mut ready = BTreeMap::new();
    loop {
        let pods = room.api::<Pod>().list(&ListParams::default()).await;
        let pods = pods.context("listing the test's pods")?;
        for pod in &pods.items {
            let name = pod.name_any();
            if is_ready(pod) && !ready.contains_key(&name) {
                let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
                say(&format!("{name} is ready on {}", node.unwrap_or("no node")));
                ready.insert(name, pod.clone());
            }
        }
        let is_missing = |member: &&Member| !ready.contains_key(member.name);
        let missing: Vec<_> = members.iter().filter(is_missing).collect();
        if missing.is_empty() {
            return Ok(ready);
        }
        if begun.elapsed() >= patience {
            let mut text = String::new();
            for member in missing {
                let pod = pods.items.iter().find(|pod| pod.name_any() == member.name);
                for line in why_of(room, member.name, pod).await {
                    let _infallible = write!(text, "\n  {}: {line}", member.name);
                }
            }
            let seconds = patience.as_secs();
            bail!("pods are not ready within {seconds} s (--timeout):{text}");
        }
        sleep(PAUSE).await;
    }
}

fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one.type_ == "Ready" && one.status == "True")
}

async fn why_of(room: &Room, name: &str, pod: Option<&Pod>) -> Vec<String> {
    let Some(pod) = pod else {
        return vec!["it is gone".to_owned()];
    };
    let about = format!("type=Warning,involvedObject.name={name}");
    let events = ListParams::default().fields(&about);
    let events = room.api::<Event>().list(&events).await;
    let events = events.map(|events| events.items).unwrap_or_default();
    why(pod, &events)
}

/// What keeps a pod from being ready: a sentence for each thing that is known.
fn why(pod: &Pod, events: &[Event]) -> Vec<String> {
    let mut lines = Vec::new();
    // Where no node takes it, the scheduler says so in a condition.
    if let (true, Some(Place::Gate(node))) =
        (pod.labels().contains_key(keys::ACCELERATED), Place::of(pod))
    {
        lines.push(format!(
            "it waits at its gate on {node}: `sidestep status node/{node}` and the agent's log say why"
        ));
    }
    let status = pod.status.as_ref();
    let inits = status.and_then(|status| status.init_container_statuses.as_ref());
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    let statuses = [inits, containers].into_iter().flatten().flatten();
    lines.extend(statuses.filter_map(in_the_way));
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let conditions = conditions.into_iter().flatten();
    let conditions = conditions.filter(|one| one.status == "False");
    lines.extend(conditions.filter_map(|one| {
        let message = one.message.as_deref().filter(|text| !text.is_empty())?;
        Some(format!("{} is not so: {message}", one.type_))
    }));
    let first = events.len().saturating_sub(EVENTS);
    lines.extend(events[first..].iter().map(|event| {
        let [reason, message] = [&event.reason, &event.message];
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("Event {}: {}", text(reason), text(message).trim())
    }));
    if lines.is_empty() {
        lines.push("its kubelet does not tell of it yet".to_owned());
    }
    lines
}

/// What a container waits for, and how it ended before.
fn in_the_way(status: &ContainerStatus) -> Option<String> {
    let name = &status.name;
    let state = status.state.as_ref()?;
    let last = status.last_state.as_ref();
    let ended = state
        .terminated
        .as_ref()
        .or_else(|| last?.terminated.as_ref())
        .filter(|ended| ended.exit_code != 0);
    let ended = ended.map(|ended| {
        let said = ended.message.as_deref().unwrap_or("it said nothing");
        format!("it ended with {}: {}", ended.exit_code, said.trim())
    });
    let waits = state.waiting.as_ref().and_then(|waiting| {
        // So every container behind an init container waits.
        let reason = waiting.reason.as_deref();
        let reason = reason.filter(|reason| *reason != "PodInitializing")?;
        let message = waiting.message.as_deref();
        Some(message.map_or_else(|| reason.to_owned(), |text| format!("{reason}: {text}")))
    });
    let parts: Vec<_> = [waits, ended].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("container {name}: {}", parts.join("; ")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: &Value) -> Pod {
        let pod = json!({
            "metadata": {"name": "near"}, "status": status,
            "spec": {"nodeName": "one", "containers": [], "initContainers": [{"name": "istio-init"}]},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    fn container(name: &str, state: &Value, last: &Value) -> Value {
        json!({
            "name": name, "ready": false, "image": "", "imageID": "", "restartCount": 0, "state": state, "lastState": last,
        })
    }

    #[test]
    fn a_pod_is_ready_where_its_kubelet_says_so() {
        let with = |status: &str| {
            let conditions = json!([{"type": "Ready", "status": status}]);
            is_ready(&pod(&json!({"conditions": conditions})))
        };
        assert!(with("True") && !with("False"));
        assert!(!is_ready(&pod(&json!({}))));
    }

    #[test]
    fn a_pod_at_its_gate_says_whom_to_ask() {
        let gate = container("istio-init", &json!({"running": {}}), &json!({}));
        let app = container(
            "app",
            &json!({"waiting": {"reason": "PodInitializing"}}),
            &json!({}),
        );
        let status = json!({"initContainerStatuses": [gate], "containerStatuses": [app]});
        let mut pod = pod(&status);
        assert!(why(&pod, &[])[0].contains("kubelet"), "it is Istio's own");
        pod.labels_mut()
            .insert(keys::ACCELERATED.to_owned(), "true".to_owned());
        let lines = why(&pod, &[]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("sidestep status node/one"), "{lines:?}");
    }

    #[test]
    fn what_containers_conditions_and_events_say_is_told() {
        let waits = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}});
        let ended = json!({"terminated": {"exitCode": 2, "message": "unrecognized subcommand\n"}});
        let status = json!({
            "containerStatuses": [container("app", &waits, &ended)],
            "conditions": [
                {"type": "Ready", "status": "False", "message": "containers with unready status: [app]"},
                {"type": "PodScheduled", "status": "True"},
            ],
        });
        let events = (0..5).map(|n| {
            let event = json!({
                "metadata": {}, "involvedObject": {}, "reason": "BackOff", "message": format!("time {n}"),
            });
            serde_json::from_value(event).expect("an Event")
        });
        let events: Vec<Event> = events.collect();
        let wanted = [
            "container app: CrashLoopBackOff: back-off; it ended with 2: unrecognized subcommand",
            "Ready is not so: containers with unready status: [app]",
            "Event BackOff: time 2",
            "Event BackOff: time 3",
            "Event BackOff: time 4",
        ];
        assert_eq!(why(&pod(&status), &events), wanted);
        let nothing = why(&pod(&json!({})), &[]);
        assert_eq!(nothing, ["its kubelet does not tell of it yet"]);
    }
}
