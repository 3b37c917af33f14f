//! The namespace of a test: everything that the test makes is in it, so that everything goes with it.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::objects::{self, LABEL, NAME};
use super::say;
use super::signals::Signals;

/// How long Kubernetes may take to remove it.
const PATIENCE: Duration = Duration::from_mins(2);

/// Between two looks whether it is gone.
const PAUSE: Duration = Duration::from_secs(1);

/// A namespace that was made for this test.
pub(super) struct Room {
    client: Client,
    name: String,
}

impl Room {
    /// Makes it.
    pub(super) async fn make(client: &Client, revision: Option<&str>) -> anyhow::Result<Self> {
        let api: Api<Namespace> = Api::all(client.clone());
        let namespace = serde_json::from_value(objects::namespace(revision))?;
        let made = api.create(&PostParams::default(), &namespace).await;
        let name = made.context("making a namespace")?.name_any();
        say(&format!("namespace {name} is there"));
        Ok(Self {
            client: client.clone(),
            name,
        })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The client.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// Its objects of a kind.
    pub(super) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Makes an object in it.
    pub(super) async fn create<K>(&self, object: Value) -> anyhow::Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let object: K = serde_json::from_value(object)?;
        let made = self.api().create(&PostParams::default(), &object).await;
        made.with_context(|| format!("making {} {}", K::kind(&()), object.name_any()))
    }

    /// Makes the policy of Istio's by which one port takes mutual TLS alone.
    pub(super) async fn create_strict(&self) -> anyhow::Result<()> {
        let object: DynamicObject = serde_json::from_value(objects::strict())?;
        let kind = GroupVersionKind::gvk("security.istio.io", "v1", "PeerAuthentication");
        let resource = ApiResource::from_gvk(&kind);
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.name, &resource);
        let made = api.create(&PostParams::default(), &object).await;
        made.map(drop)
            .context("making a PeerAuthentication: is Istio 1.24 or later installed?")
    }

    /// Copies a Secret with credentials for a registry. Without it the image may be on the nodes all the same.
    pub(super) async fn copy_secret(&self, home: &str, name: &str) {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), home);
        let copied = async {
            let secret = api.get(name).await?;
            let copy = Secret {
                data: secret.data,
                type_: secret.type_,
                metadata: kube::core::ObjectMeta {
                    name: Some(name.to_owned()),
                    ..Default::default()
                },
                ..Secret::default()
            };
            self.api().create(&PostParams::default(), &copy).await
        };
        if let Err(error) = copied.await {
            say(&format!(
                "pull secret {name} is not copied, the image must be on the nodes: {error}"
            ));
        }
    }

    /// Leaves it.
    pub(super) fn keep(&self) {
        let name = &self.name;
        say(&format!(
            "namespace {name} stays: remove it with `kubectl delete namespace {name}`"
        ));
    }

    /// Removes it, and waits until it is gone, or until somebody does not want to wait.
    pub(super) async fn remove(&self, signals: &mut Signals) {
        let name = &self.name;
        say(&format!("removing namespace {name}"));
        let api: Api<Namespace> = Api::all(self.client.clone());
        match api.delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return,
            Err(error) => {
                say(&format!(
                    "namespace {name} is not removed: {error}; do it with `kubectl delete namespace {name}`"
                ));
                return;
            }
            Ok(_) => {}
        }
        let gone = async {
            while !matches!(api.get_opt(name).await, Ok(None)) {
                sleep(PAUSE).await;
            }
        };
        let is_gone = tokio::select! {
            gone = timeout(PATIENCE, gone) => gone.is_ok(),
            () = signals.next() => false,
        };
        if !is_gone {
            say(&format!("namespace {name} is still being removed"));
        }
    }
}

/// Names the namespaces of earlier tests.
pub(super) async fn tell_of_leftovers(client: &Client) -> anyhow::Result<()> {
    let api: Api<Namespace> = Api::all(client.clone());
    let of_tests = ListParams::default().labels(&format!("{LABEL}={NAME}"));
    let found = api.list(&of_tests).await.context("listing namespaces")?;
    for namespace in found {
        if namespace.metadata.deletion_timestamp.is_none() {
            let name = namespace.name_any();
            say(&format!(
                "namespace {name} is there since an earlier test: remove it with `kubectl delete namespace {name}`"
            ));
        }
    }
    Ok(())
}
