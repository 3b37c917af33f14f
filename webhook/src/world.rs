//! The present state of the cluster, kept by watches and read at each review.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Namespace as KubeNamespace;
use kube::Client;
use kube::api::{Api, PartialObjectMeta};
use tokio::time::{Instant, timeout};

use crate::cluster::{Cluster, Namespace};

mod nodes;
mod watch;

pub use watch::{Agents, follow};

/// How long a review waits for a namespace.
const PATIENCE: Duration = Duration::from_secs(1);

/// The state that the watches keep.
pub struct World {
    cluster: ArcSwap<Cluster>,
    /// What the watches of nodes and agents last said.
    nodes: Mutex<nodes::Known>,
    namespaces: Namespaces,
    client: Option<Client>,
}

#[derive(Debug)]
enum Namespaces {
    /// No namespace has labels or annotations of ours.
    Silent,
    /// By name.
    Known(RwLock<HashMap<String, Arc<Namespace>>>),
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("cluster", &self.cluster)
            .field("namespaces", &self.namespaces)
            .finish_non_exhaustive()
    }
}

impl World {
    /// A cluster without an API server: agents on every node, and namespaces without labels of ours.
    pub fn assumed() -> Self {
        Self {
            cluster: ArcSwap::from_pointee(Cluster::assumed()),
            nodes: Mutex::default(),
            namespaces: Namespaces::Silent,
            client: None,
        }
    }

    /// A cluster of which nothing is known yet: no agent, no namespace. The client reads namespaces that are too new for the
    /// watch.
    pub fn unknown(client: Option<Client>) -> Self {
        let nothing = Cluster {
            nodes: Some(BTreeMap::new()),
            ..Cluster::default()
        };
        Self {
            cluster: ArcSwap::from_pointee(nothing),
            nodes: Mutex::default(),
            namespaces: Namespaces::Known(RwLock::default()),
            client,
        }
    }

    /// Agents and nodes.
    pub fn cluster(&self) -> Arc<Cluster> {
        self.cluster.load_full()
    }

    /// A namespace, from the API server if the watch has not seen it yet: its first pod may be as new as the namespace.
    pub async fn namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        if let Some(known) = self.known_namespace(name) {
            return Some(known);
        }
        // It becomes part of a path, and a review may come from anybody.
        if !is_label(name) {
            return None;
        }
        let api: Api<PartialObjectMeta<KubeNamespace>> = Api::all(self.client.clone()?);
        match timeout(PATIENCE, api.get(name)).await {
            Ok(Ok(object)) => Some(Arc::new(watch::words_of(&object))),
            Ok(Err(error)) => {
                tracing::warn!(%error, name, "could not read a namespace; its pod is left to Istio unless the pod itself opts in");
                None
            }
            Err(_) => None,
        }
    }

    fn known_namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        match &self.namespaces {
            Namespaces::Silent => Some(Arc::default()),
            Namespaces::Known(all) => {
                let all = all.read().unwrap_or_else(PoisonError::into_inner);
                all.get(name).cloned()
            }
        }
    }

    /// Changes what is known of nodes and agents, and publishes the cluster as it is then.
    fn change_nodes(&self, change: impl FnOnce(&mut nodes::Known, Instant)) {
        let mut known = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut known, Instant::now());
        self.cluster.store(Arc::new(known.cluster()));
    }

    /// Publishes the cluster anew if an agent has been away for too long to count.
    fn forget_agents(&self) {
        let mut known = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if known.forget(Instant::now()) {
            self.cluster.store(Arc::new(known.cluster()));
        }
    }

    fn change_namespaces(&self, change: impl FnOnce(&mut HashMap<String, Arc<Namespace>>)) {
        if let Namespaces::Known(all) = &self.namespaces {
            change(&mut all.write().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// Whether it can be a namespace's name (RFC 1123, a label).
fn is_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    matches!(bytes.len(), 1..=63)
        && bytes.iter().all(|byte| inner(*byte) || *byte == b'-')
        && bytes.first().is_some_and(|byte| inner(*byte))
        && bytes.last().is_some_and(|byte| inner(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_no_namespace_is_never_asked_for() {
        let long = "n".repeat(64);
        for name in ["shop", "kube-system", "a", "0", &long[1..]] {
            assert!(is_label(name), "{name}");
        }
        for name in [
            "",
            "kube-system/pods",
            "..",
            "-a",
            "a-",
            "A",
            "a.b",
            "a%2fb",
            &long,
        ] {
            assert!(!is_label(name), "{name}");
        }
    }
}
