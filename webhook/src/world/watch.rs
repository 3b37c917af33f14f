//! The watches: namespaces, agent pods, nodes, claims of volumes and volumes. Each relist is a full replacement.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{
    Namespace as KubeNamespace, Node, NodeSelector, PersistentVolume, PersistentVolumeClaim, Pod,
};
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Client, Resource, ResourceExt as _};
use sidestep_contract::keys;
use sidestep_runtime::Tasks;
use tokio::time::interval;

use super::World;
use super::nodes::{self, AgentPod, Claim};
use crate::cluster::{Facts, Namespace};
use crate::metrics::Metrics;

/// Between looks at whether an agent has been away for long.
const TICK: Duration = Duration::from_secs(5);

/// How agent pods are found.
#[derive(Clone, Debug)]
pub struct Agents {
    /// Their namespace.
    pub namespace: String,
    /// Their labels, as a selector.
    pub selector: String,
}

/// Keeps `world` equal to the cluster, for ever. The returned number of missing watches is 0 once each has listed its objects.
pub fn follow(
    client: &Client,
    agents: &Agents,
    world: &Arc<World>,
    metrics: &Arc<Metrics>,
    tasks: &mut Tasks,
) -> Arc<AtomicUsize> {
    let missing = Arc::new(AtomicUsize::new(5));
    let failing = |watch| {
        let metrics = Arc::clone(metrics);
        move |_: &watcher::Error| metrics.watch_failed(watch)
    };

    let api: Api<PartialObjectMeta<KubeNamespace>> = Api::all(client.clone());
    let target = Arc::clone(world);
    let namespaces = mirror(
        watcher(api, Config::default()).inspect_err(failing("namespaces")),
        |namespace| Some(Arc::new(words_of(namespace))),
        move |all: &BTreeMap<String, Arc<Namespace>>| {
            let all = all.iter().map(|(name, n)| (name.clone(), Arc::clone(n)));
            target.change_namespaces(|known| *known = all.collect());
        },
        Arc::clone(&missing),
    );
    tasks.spawn("watching namespaces", namespaces);

    let api: Api<Pod> = Api::namespaced(client.clone(), &agents.namespace);
    let target = Arc::clone(world);
    let agents = mirror(
        watcher(api, Config::default().labels(&agents.selector)).inspect_err(failing("agents")),
        AgentPod::of,
        move |all: &BTreeMap<String, AgentPod>| {
            target.change_nodes(|known, now| known.agents(all.values(), now));
        },
        Arc::clone(&missing),
    );
    tasks.spawn("watching agents", agents);

    let target = Arc::clone(world);
    let nodes = mirror(
        // A node's status is large.
        watcher(
            Api::<Node>::all(client.clone()),
            Config::default().page_size(50),
        )
        .inspect_err(failing("nodes")),
        |node| Some(nodes::facts(node)),
        move |all: &BTreeMap<String, Arc<Facts>>| {
            target.change_nodes(|known, _| known.nodes(all.values().cloned()));
        },
        Arc::clone(&missing),
    );
    tasks.spawn("watching nodes", nodes);

    let target = Arc::clone(world);
    let claims = mirror(
        watcher(
            Api::<PersistentVolumeClaim>::all(client.clone()),
            Config::default(),
        )
        .inspect_err(failing("claims")),
        nodes::claim,
        move |all: &BTreeMap<String, Claim>| {
            target.change_nodes(|known, _| known.claims(all.values()));
        },
        Arc::clone(&missing),
    );
    tasks.spawn("watching claims of volumes", claims);

    let target = Arc::clone(world);
    let volumes = mirror(
        watcher(
            Api::<PersistentVolume>::all(client.clone()),
            Config::default(),
        )
        .inspect_err(failing("volumes")),
        nodes::reached_from,
        move |all: &BTreeMap<String, NodeSelector>| {
            target.change_nodes(|known, _| known.volumes(all.clone()));
        },
        Arc::clone(&missing),
    );
    tasks.spawn("watching volumes", volumes);

    let target = Arc::clone(world);
    tasks.spawn("looking at the time", async move {
        let mut ticks = interval(TICK);
        loop {
            ticks.tick().await;
            target.forget_agents();
        }
    });
    missing
}

/// Those of a namespace's labels and annotations that decide something. Others may be large.
pub(super) fn words_of(object: &impl Resource) -> Namespace {
    let decides = |key: &str| key.starts_with(keys::PREFIX) || key == keys::OVN_PRIMARY_NETWORK;
    let kept = |all: &BTreeMap<String, String>| {
        let kept = all.iter().filter(|(key, _)| decides(key));
        kept.map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    Namespace {
        labels: kept(object.labels()),
        annotations: kept(object.annotations()),
    }
}

/// Keeps the `entry` of each object, and publishes all of them after each change.
async fn mirror<K, V>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    entry: impl Fn(&K) -> Option<V> + Send,
    publish: impl Fn(&BTreeMap<String, V>) + Send,
    missing: Arc<AtomicUsize>,
) where
    K: Resource + Clone + Debug + Send + 'static,
    V: PartialEq + Send,
{
    let name = |object: &K| match object.namespace() {
        Some(namespace) => format!("{namespace}/{}", object.name_any()),
        None => object.name_any(),
    };
    let mut all = BTreeMap::new();
    let mut listed = BTreeMap::new();
    let mut synced = false;
    let mut events = pin!(events.default_backoff());
    while let Some(event) = events.next().await {
        let changed = match event {
            Ok(Event::Init) => {
                listed.clear();
                false
            }
            Ok(Event::InitApply(object)) => {
                if let Some(value) = entry(&object) {
                    listed.insert(name(&object), value);
                }
                false
            }
            Ok(Event::InitDone) => {
                let changed = all != listed || !synced;
                all = std::mem::take(&mut listed);
                changed
            }
            Ok(Event::Apply(object)) => match entry(&object) {
                Some(value) => {
                    let changed = all.get(&name(&object)) != Some(&value);
                    all.insert(name(&object), value);
                    changed
                }
                None => all.remove(&name(&object)).is_some(),
            },
            Ok(Event::Delete(object)) => all.remove(&name(&object)).is_some(),
            Err(error) => {
                tracing::warn!(%error, "a watch of the API server failed; will retry");
                false
            }
        };
        if changed {
            publish(&all);
            if !synced {
                synced = true;
                missing.fetch_sub(1, Ordering::Release);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::stream;
    use serde_json::json;

    use super::*;
    use crate::cluster::Agent;

    fn agent(name: &str, node: &str, ready: bool) -> Pod {
        let status = if ready { "True" } else { "False" };
        let pod = json!({
            "metadata": {"name": name, "namespace": "n"},
            "spec": {"nodeName": node, "containers": []},
            "status": {"conditions": [{"type": "Ready", "status": status}]},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    /// The node of an agent that is ready.
    fn ready_on(pod: &Pod) -> Option<String> {
        let pod = AgentPod::of(pod)?;
        (pod.agent == Agent::Ready).then_some(pod.node)
    }

    /// Every state that is published, as the nodes with an agent; and how many watches are still missing.
    async fn published(events: Vec<Event<Pod>>) -> (Vec<Vec<String>>, usize) {
        let seen = Mutex::new(Vec::new());
        let missing = Arc::new(AtomicUsize::new(1));
        mirror(
            stream::iter(events.into_iter().map(Ok)),
            ready_on,
            |all: &BTreeMap<String, String>| {
                let nodes = all.values().cloned().collect();
                seen.lock().expect("one thread").push(nodes);
            },
            Arc::clone(&missing),
        )
        .await;
        let seen = seen.into_inner().expect("one thread");
        (seen, missing.load(Ordering::Acquire))
    }

    #[tokio::test]
    async fn an_agent_counts_while_it_is_ready() {
        let (seen, missing) = published(vec![
            Event::Init,
            Event::InitApply(agent("a", "one", true)),
            Event::InitApply(agent("b", "two", false)),
            Event::InitDone,
            Event::Apply(agent("b", "two", true)),
            Event::Apply(agent("b", "two", true)),
            Event::Apply(agent("a", "one", false)),
            Event::Delete(agent("b", "two", true)),
        ])
        .await;
        assert_eq!(seen, [vec!["one"], vec!["one", "two"], vec!["two"], vec![]]);
        assert_eq!(missing, 0);
    }

    #[tokio::test]
    async fn an_empty_list_is_known_too_and_half_a_list_is_not() {
        let listed = published(vec![Event::Init, Event::InitDone]).await;
        assert_eq!(listed, (vec![vec![]], 0));
        let half = vec![Event::Init, Event::InitApply(agent("a", "one", true))];
        assert_eq!(published(half).await, (vec![], 1));
    }

    #[tokio::test]
    async fn listing_again_replaces_everything_at_once() {
        let (seen, _) = published(vec![
            Event::Init,
            Event::InitApply(agent("a", "one", true)),
            Event::InitDone,
            Event::Init,
            Event::InitApply(agent("b", "two", true)),
            Event::InitDone,
        ])
        .await;
        assert_eq!(seen, [vec!["one"], vec!["two"]]);
    }

    #[test]
    fn of_a_namespace_only_what_decides_is_kept() {
        let namespace = json!({"metadata": {
            "labels": {"sidestep.dev/enabled": "true", "k8s.ovn.org/primary-user-defined-network": "", "x": "y"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "long"},
        }});
        let namespace: KubeNamespace = serde_json::from_value(namespace).expect("a namespace");
        let words = words_of(&namespace);
        assert_eq!(words.labels.len(), 2);
        assert!(words.annotations.is_empty());
    }
}
