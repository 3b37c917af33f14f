//! How the agents are installed: a test's pods run their image, and run where they do.

use anyhow::{Context as _, bail};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Toleration;
use kube::Client;
use kube::api::{Api, ListParams};

use crate::cluster::AGENTS;

/// What the agents' DaemonSet says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Install {
    pub(super) image: String,
    /// `None` leaves it to the API server.
    pub(super) pull_policy: Option<String>,
    /// Names of Secrets, in Sidestep's namespace.
    pub(super) pull_secrets: Vec<String>,
    pub(super) tolerations: Vec<Toleration>,
}

impl Install {
    /// Reads it from the cluster.
    pub(super) async fn found(client: &Client, home: &str) -> anyhow::Result<Self> {
        let api: Api<DaemonSet> = Api::namespaced(client.clone(), home);
        let sets = api.list(&ListParams::default().labels(AGENTS)).await;
        let sets = sets.with_context(|| format!("listing DaemonSets in namespace {home}"))?;
        match sets.items.first().and_then(Self::of) {
            Some(install) => Ok(install),
            None => bail!(
                "namespace {home} has no DaemonSet of agents: install Sidestep, or name its namespace with --sidestep-namespace"
            ),
        }
    }

    fn of(set: &DaemonSet) -> Option<Self> {
        let pod = set.spec.as_ref()?.template.spec.as_ref()?;
        let agent = pod.containers.iter().find(|one| one.name == "agent")?;
        let secrets = pod.image_pull_secrets.iter().flatten();
        Some(Self {
            image: agent.image.clone()?,
            pull_policy: agent.image_pull_policy.clone(),
            pull_secrets: secrets.map(|secret| secret.name.clone()).collect(),
            tolerations: pod.tolerations.clone().unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_pods_need_is_read_from_the_agents_own() {
        let set = json!({"spec": {"selector": {}, "template": {"spec": {
            "containers": [
                {"name": "other", "image": "other"},
                {"name": "agent", "image": "r/agent:1", "imagePullPolicy": "Never"},
            ],
            "imagePullSecrets": [{"name": "registry"}],
            "tolerations": [{"operator": "Exists"}],
        }}}});
        let set = serde_json::from_value(set).expect("a DaemonSet");
        let install = Install::of(&set).expect("an agent");
        assert_eq!(install.image, "r/agent:1");
        assert_eq!(install.pull_policy.as_deref(), Some("Never"));
        assert_eq!(install.pull_secrets, ["registry"]);
        let everywhere = install.tolerations[0].operator.as_deref();
        assert_eq!(everywhere, Some("Exists"));
        assert_eq!(Install::of(&DaemonSet::default()), None);
    }
}
