//! Nodes that could run Sidestep and have no ready agent get a label that says why, so that gated pods keep off them.
//!
//! It has a key of its own: the one of nodes that cannot run Sidestep would take the agent away, which may yet become ready.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Node as KubeNode;
use k8s_openapi::api::events::v1::Event as Report;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, watcher};
use serde_json::{Value, json};
use sidestep_contract::keys;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::cluster::{Agent, Cluster, Node, WithoutAgent};
use crate::world::World;

/// Between looks.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long a node may be without any agent's pod: the DaemonSet controller makes one as soon as it sees the node.
const NO_POD: Duration = Duration::from_secs(30);

/// Most nodes that are labelled at one look.
const MOST: usize = 50;

/// Who owns the label (server-side apply).
const MANAGER: &str = "sidestep-webhook-agents";

/// The namespace of Events about nodes.
const EVENTS: &str = "default";

/// What labelling needs.
#[derive(Clone)]
pub(super) struct Labeller {
    pub(super) client: Client,
    pub(super) world: Arc<World>,
    /// 0 once nodes and agents are known.
    pub(super) missing: Arc<AtomicUsize>,
    /// How long an agent may be not ready.
    pub(super) patience: Duration,
}

/// Labels nodes for as long as the future is polled.
pub(super) async fn label(labeller: Labeller) {
    let nodes: Api<KubeNode> = Api::all(labeller.client.clone());
    let reports: Api<Report> = Api::namespaced(labeller.client.clone(), EVENTS);
    let final_words = Config::default().fields(&format!("reason={}", keys::CANNOT_RUN));
    let mut reports = pin!(
        watcher(reports, final_words)
            .default_backoff()
            .applied_objects()
    );
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut book = Book::default();
    let mut said = None;
    loop {
        tokio::select! {
            report = reports.next() => match report {
                None => return,
                Some(Ok(report)) => book.hear(&report),
                Some(Err(error)) => {
                    tracing::debug!(%error, "could not watch what agents say about their nodes; will retry");
                }
            },
            _ = ticks.tick() => {
                if labeller.missing.load(Ordering::Acquire) > 0 {
                    continue;
                }
                let cluster = labeller.world.cluster();
                let due = book.due(&cluster, labeller.patience, Instant::now());
                let error = relabel(&nodes, due).await.err();
                if let Some(error) = error.as_ref().filter(|_| error != said) {
                    tracing::warn!(error, "could not label a node without a ready agent; will retry");
                }
                said = error;
            }
        }
    }
}

/// A change to a node's label; `None` removes it.
type Change = (String, Option<WithoutAgent>);

/// Makes the first of these changes; the others come at the next look. Returns the last error.
async fn relabel(nodes: &Api<KubeNode>, due: Vec<Change>) -> Result<(), String> {
    let mut outcome = Ok(());
    for (node, word) in due.into_iter().take(MOST) {
        let (params, patch) = (PatchParams::apply(MANAGER), patch(&node, word));
        match nodes.patch(&node, &params, &Patch::Apply(patch)).await {
            Ok(_) => {
                let word = word.map(WithoutAgent::word);
                tracing::info!(node, without_agent = word, "changed the label of a node");
            }
            // It is gone, or somebody else wrote the label in the meantime.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => outcome = Err(format!("node {node}: {error}")),
        }
    }
    outcome
}

/// All that we say about the node: without the label, it goes.
fn patch(node: &str, word: Option<WithoutAgent>) -> Value {
    let labels = word.map_or(json!({}), |word| json!({keys::WITHOUT_AGENT: word.word()}));
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": labels}})
}

/// Since when nodes have been without a ready agent, by this process's own clock.
#[derive(Debug, Default)]
struct Book {
    since: BTreeMap<String, (Agent, Instant)>,
    /// Nodes whose agents say that they never will be ready.
    cannot: BTreeSet<String>,
}

impl Book {
    /// Takes in an Event that an agent wrote about its node. Whoever may write Events there may say so too; what a ready agent
    /// shows counts more.
    fn hear(&mut self, report: &Report) {
        let about = report.regarding.as_ref();
        let about = about.filter(|about| about.kind.as_deref() == Some("Node"));
        self.cannot
            .extend(about.and_then(|about| about.name.clone()));
    }

    /// The changes that are due.
    fn due(&mut self, cluster: &Cluster, patience: Duration, now: Instant) -> Vec<Change> {
        let Some(nodes) = &cluster.nodes else {
            return Vec::new();
        };
        self.since.retain(|name, _| nodes.contains_key(name));
        self.cannot.retain(|name| nodes.contains_key(name));
        let changes = nodes.iter().filter_map(|(name, node)| {
            let found = match node.facts.labels.get(keys::WITHOUT_AGENT) {
                // A word that is none of ours was written by the cluster's owner, and stays.
                Some(word) => Some(word.parse().ok()?),
                None => None,
            };
            let wanted = self.wanted(name, node, found, patience, now);
            (found != wanted).then(|| (name.clone(), wanted))
        });
        changes.collect()
    }

    /// The label that a node with this one should have.
    fn wanted(
        &mut self,
        name: &str,
        node: &Node,
        found: Option<WithoutAgent>,
        patience: Duration,
        now: Instant,
    ) -> Option<WithoutAgent> {
        let (word, patience) = match node.agent {
            Agent::Missing => (WithoutAgent::Missing, NO_POD),
            Agent::NotReady => (WithoutAgent::NotReady, patience),
            Agent::Older => (WithoutAgent::Older, Duration::ZERO),
            Agent::Lately | Agent::Ready => {
                self.since.remove(name);
                self.cannot.remove(name);
                return found.filter(|_| node.agent == Agent::Lately);
            }
        };
        if node.is_unsupported() {
            return None;
        }
        if node.agent == Agent::NotReady
            && (self.cannot.contains(name) || found == Some(WithoutAgent::CannotRun))
        {
            return Some(WithoutAgent::CannotRun);
        }
        let since = self.since.entry(name.to_owned());
        let since = since.or_insert((node.agent, now));
        if since.0 != node.agent {
            *since = (node.agent, now);
        }
        if now - since.1 >= patience {
            Some(word)
        } else {
            found
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Facts;

    const PATIENCE: Duration = Duration::from_mins(5);

    fn node(agent: Agent, labels: &[(&str, &str)]) -> Node {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let facts = Facts {
            labels: labels.collect(),
            ..Facts::default()
        };
        Node {
            facts: Arc::new(facts),
            agent,
        }
    }

    fn one(agent: Agent, labels: &[(&str, &str)]) -> Cluster {
        Cluster {
            nodes: Some([("n".to_owned(), node(agent, labels))].into()),
            ..Cluster::default()
        }
    }

    fn labelled(word: &str) -> [(&str, &str); 1] {
        [(keys::WITHOUT_AGENT, word)]
    }

    /// What becomes of the label of a node that has been like this for so many seconds; "" where it goes.
    fn after(seconds: u64, cluster: &Cluster) -> Option<&'static str> {
        let (mut book, now) = (Book::default(), Instant::now());
        book.due(cluster, PATIENCE, now);
        let due = book.due(cluster, PATIENCE, now + Duration::from_secs(seconds));
        due.first()
            .map(|(_, word)| word.map_or("", WithoutAgent::word))
    }

    #[test]
    fn a_node_is_labelled_when_its_agent_has_been_away_for_long() {
        let missing = one(Agent::Missing, &[]);
        assert_eq!(after(29, &missing), None);
        assert_eq!(after(30, &missing), Some("missing"));
        let not_ready = one(Agent::NotReady, &[]);
        assert_eq!(after(299, &not_ready), None);
        assert_eq!(after(300, &not_ready), Some("not-ready"));
        let older = one(Agent::Older, &[]);
        assert_eq!(after(0, &older), Some("older"));
        for agent in [Agent::Lately, Agent::Ready] {
            assert_eq!(after(1000, &one(agent, &[])), None, "{agent:?}");
        }
    }

    #[test]
    fn the_label_goes_when_the_agent_is_ready_and_not_before() {
        for word in WithoutAgent::WORDS {
            let found = labelled(word);
            assert_eq!(after(0, &one(Agent::Ready, &found)), Some(""), "{word}");
            assert_eq!(after(0, &one(Agent::Lately, &found)), None, "{word}");
            assert_eq!(after(0, &one(Agent::NotReady, &found)), None, "{word}");
        }
        let missing = one(Agent::NotReady, &labelled("missing"));
        assert_eq!(after(300, &missing), Some("not-ready"));
        let cannot = one(Agent::NotReady, &labelled("cannot-run"));
        assert_eq!(
            after(300, &cannot),
            None,
            "whoever leads now did not hear it"
        );
    }

    #[test]
    fn other_words_stay_and_nodes_that_cannot_run_it_need_none() {
        for agent in [Agent::Missing, Agent::NotReady, Agent::Ready] {
            assert_eq!(after(1000, &one(agent, &labelled("mine"))), None);
        }
        let unsupported = (keys::UNSUPPORTED, "not-linux");
        assert_eq!(after(1000, &one(Agent::Missing, &[unsupported])), None);
        let both = one(Agent::Missing, &[unsupported, labelled("missing")[0]]);
        assert_eq!(after(0, &both), Some(""));
    }

    #[test]
    fn an_agent_that_says_it_never_will_be_ready_is_believed_at_once_until_it_is() {
        let report = json!({
            "metadata": {}, "eventTime": null, "reason": keys::CANNOT_RUN,
            "regarding": {"kind": "Node", "name": "n"}});
        let report = serde_json::from_value(report).expect("an Event");
        let (mut book, now) = (Book::default(), Instant::now());
        book.hear(&report);
        let mut due = |agent| book.due(&one(agent, &[]), PATIENCE, now);
        let cannot = vec![("n".to_owned(), Some(WithoutAgent::CannotRun))];
        assert_eq!(due(Agent::NotReady), cannot);
        assert_eq!(due(Agent::Ready), []);
        assert_eq!(due(Agent::NotReady), [], "it was another agent");
    }

    #[test]
    fn the_change_is_all_that_is_ours() {
        let all = |word| patch("n", word)["metadata"]["labels"].clone();
        assert_eq!(all(None), json!({}));
        let wanted = json!({"sidestep.dev/without-agent": "not-ready"});
        assert_eq!(all(Some(WithoutAgent::NotReady)), wanted);
    }
}
