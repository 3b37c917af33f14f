//! The API server as a [`Store`].
//!
//! Rights: `get` and `update` on the one Secret and on the one webhook configuration, by name; `create` on Secrets only
//! where the Secret is not there yet.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::{ByteString, Resource as _};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ObjectMeta, PostParams};
use serde_json::Value;

use crate::holding::Data;
use crate::store::{Configuration, Store, StoreError, Stored, Webhook};

/// The label that lets the keeper write a Secret, if its value is `managed`.
pub const LABEL: &str = "sidestep.dev/certificates";

const MANAGED: &str = "managed";

/// The field manager of our writes.
const MANAGER: &str = "sidestep-webhook";

/// Names of the objects that the keeper reads and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The namespace of Secret and Service.
    pub namespace: String,
    /// The Secret.
    pub secret: String,
    /// The Service that webhooks of the configuration name.
    pub service: String,
    /// The `MutatingWebhookConfiguration`.
    pub configuration: String,
}

impl Names {
    /// The DNS name by which API servers know the server.
    pub fn server(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }
}

/// The API server.
#[derive(Clone)]
pub struct KubeStore {
    names: Names,
    secrets: Api<Secret>,
    configurations: Api<DynamicObject>,
}

impl KubeStore {
    /// A store with these objects.
    pub fn new(client: Client, names: Names) -> Self {
        type Kind = MutatingWebhookConfiguration;
        let kind = GroupVersionKind::gvk(Kind::GROUP, Kind::VERSION, Kind::KIND);
        // Not typed: a field that this version does not know must survive a write.
        let kind = ApiResource::from_gvk(&kind);
        Self {
            secrets: Api::namespaced(client.clone(), &names.namespace),
            configurations: Api::all_with(client, &kind),
            names,
        }
    }

    fn secret_kind(&self) -> String {
        format!("Secret {}", self.secret_name())
    }

    fn configuration_kind(&self) -> String {
        format!("MutatingWebhookConfiguration {}", self.names.configuration)
    }
}

impl Store for KubeStore {
    fn secret_name(&self) -> String {
        format!("{}/{}", self.names.namespace, self.names.secret)
    }

    async fn secret(&self) -> Result<Option<Stored>, StoreError> {
        let secret = self.secrets.get_opt(&self.names.secret).await;
        let secret = secret.map_err(|error| failed("read", &self.secret_kind(), error))?;
        Ok(secret.map(|secret| {
            let labels = secret.metadata.labels.as_ref();
            let label = labels.and_then(|labels| labels.get(LABEL));
            Stored {
                is_managed: label.is_some_and(|value| value == MANAGED),
                version: secret.metadata.resource_version.unwrap_or_default(),
                data: secret.data.unwrap_or_default(),
            }
        }))
    }

    async fn create_secret(&self, data: Data) -> Result<(), StoreError> {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.names.secret.clone()),
                labels: Some([(LABEL.to_owned(), MANAGED.to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..Secret::default()
        };
        let made = self.secrets.create(&post(), &secret).await;
        made.map_err(|error| failed("create", &self.secret_kind(), error))?;
        Ok(())
    }

    async fn replace_secret(&self, data: Data, version: &str) -> Result<(), StoreError> {
        let name = &self.names.secret;
        let read = self.secrets.get(name).await;
        let mut secret = read.map_err(|error| failed("read", &self.secret_kind(), error))?;
        if secret.metadata.resource_version.as_deref() != Some(version) {
            return Err(StoreError::Conflict(self.secret_kind()));
        }
        secret.data = Some(data);
        let written = self.secrets.replace(name, &post(), &secret).await;
        written.map_err(|error| failed("update", &self.secret_kind(), error))?;
        Ok(())
    }

    async fn configuration(&self) -> Result<Option<Configuration>, StoreError> {
        let read = self
            .configurations
            .get_opt(&self.names.configuration)
            .await
            .map_err(|error| failed("read", &self.configuration_kind(), error))?;
        Ok(read.map(|object| Configuration {
            webhooks: webhooks(&object.data, &self.names),
            version: object.metadata.resource_version.unwrap_or_default(),
        }))
    }

    async fn write_bundle(
        &self,
        pem: &str,
        webhooks: &[Webhook],
        version: &str,
    ) -> Result<(), StoreError> {
        let name = &self.names.configuration;
        let kind = self.configuration_kind();
        let read = self.configurations.get(name).await;
        let mut object = read.map_err(|error| failed("read", &kind, error))?;
        if object.metadata.resource_version.as_deref() != Some(version) {
            return Err(StoreError::Conflict(kind));
        }
        let bundle = serde_json::json!(ByteString(pem.as_bytes().to_vec()));
        for Webhook { index, .. } in webhooks {
            object.data["webhooks"][index]["clientConfig"]["caBundle"] = bundle.clone();
        }
        let written = self.configurations.replace(name, &post(), &object).await;
        written.map_err(|error| failed("update", &kind, error))?;
        Ok(())
    }
}

/// The webhooks that are served by our Service.
fn webhooks(configuration: &Value, names: &Names) -> Vec<Webhook> {
    let all = configuration.get("webhooks").and_then(Value::as_array);
    let all = all.into_iter().flatten().enumerate();
    all.filter_map(|(index, webhook)| {
        let client = webhook.get("clientConfig")?;
        let service = client.get("service")?;
        let is = |field, value: &str| service.get(field).and_then(Value::as_str) == Some(value);
        let bundle = client.get("caBundle").cloned().unwrap_or_default();
        let bundle: ByteString = serde_json::from_value(bundle).unwrap_or_default();
        let name = webhook.get("name").and_then(Value::as_str);
        (is("name", &names.service) && is("namespace", &names.namespace)).then(|| Webhook {
            index,
            name: name.unwrap_or_default().to_owned(),
            bundle: bundle.0,
        })
    })
    .collect()
}

fn post() -> PostParams {
    PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    }
}

/// The API server answers 409 if another client changed or created the object in the meantime.
fn failed(verb: &str, kind: &str, error: kube::Error) -> StoreError {
    match error {
        kube::Error::Api(status) if status.code == 409 => StoreError::Conflict(kind.to_owned()),
        kube::Error::Api(status) if status.code == 403 => StoreError::Failed {
            what: format!("cannot {verb} {kind}"),
            why: format!("{} (grant it in the webhook's Role)", status.message),
        },
        error => StoreError::Failed {
            what: format!("cannot {verb} {kind}"),
            why: error.to_string(),
        },
    }
}
