//! Istio, and who is asked about new pods.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use sidestep_certs::cert::Cert;

use super::known;
use crate::check::facts::{Istiod, Known, OurWebhook, Registration};

/// The name of our webhook in its registration.
const OURS: &str = "pods.sidestep.dev";

/// Label of a control plane's objects: its revision.
const REVISION: &str = "istio.io/rev";

/// Label that every namespace has: its name.
const NAMESPACE: &str = "kubernetes.io/metadata.name";

/// How long the API server waits for a webhook that does not say.
const TIMEOUT: i32 = 10;

pub(super) struct Mesh {
    pub(super) istiods: Known<Vec<Istiod>>,
    pub(super) istio_cni: Known<bool>,
    pub(super) registrations: Known<Vec<Registration>>,
}

pub(super) async fn mesh(client: &Client) -> Mesh {
    let deployments: Api<Deployment> = Api::all(client.clone());
    let sets: Api<DaemonSet> = Api::all(client.clone());
    let registrations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let istiod = ListParams::default().labels("app=istiod");
    let cni = ListParams::default().labels("k8s-app=istio-cni-node");
    let all = ListParams::default();
    let (istiods, cni, registrations) = tokio::join!(
        deployments.list(&istiod),
        sets.list(&cni),
        registrations.list(&all)
    );
    Mesh {
        istiods: known(istiods).map(|found| found.iter().map(istiod_fact).collect()),
        istio_cni: known(cni).map(|found| !found.items.is_empty()),
        registrations: known(registrations).map(|found| found.iter().map(registration).collect()),
    }
}

fn istiod_fact(deployment: &Deployment) -> Istiod {
    let labels = deployment.labels();
    let status = deployment.status.as_ref();
    let revision = labels.get(REVISION).map_or("default", String::as_str);
    Istiod {
        place: format!(
            "{}/{}",
            deployment.namespace().unwrap_or_default(),
            deployment.name_any()
        ),
        revision: revision.to_owned(),
        version: image_version(deployment)
            .or_else(|| labels.get("app.kubernetes.io/version").cloned()),
        available: status
            .and_then(|status| status.available_replicas)
            .unwrap_or(0),
    }
}

/// The tag of istiod's image, if it is a version's.
fn image_version(deployment: &Deployment) -> Option<String> {
    let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
    let image = pod
        .containers
        .iter()
        .find_map(|one| (one.name == "discovery").then_some(one.image.as_deref())?)?;
    let name = image.rsplit('/').next()?.split('@').next()?;
    let (_, tag) = name.split_once(':')?;
    let is_version = tag.starts_with(|c: char| c.is_ascii_digit()) && tag.contains('.');
    is_version.then(|| tag.to_owned())
}

fn registration(object: &MutatingWebhookConfiguration) -> Registration {
    let webhooks = object.webhooks.as_deref().unwrap_or_default();
    let labels = object.labels();
    let named = |webhook: &MutatingWebhook| webhook.name.ends_with("sidecar-injector.istio.io");
    let injects = labels
        .get("app")
        .is_some_and(|app| app == "sidecar-injector")
        || webhooks.iter().any(named);
    let revision = labels.get(REVISION).map_or("default", String::as_str);
    Registration {
        name: object.name_any(),
        made: object.creation_timestamp().map(|time| time.0),
        injects: injects.then(|| revision.to_owned()),
        ours: webhooks
            .iter()
            .find(|one| one.name == OURS)
            .map(our_webhook),
    }
}

fn our_webhook(webhook: &MutatingWebhook) -> OurWebhook {
    let seconds = webhook.timeout_seconds.unwrap_or(TIMEOUT);
    let bundle = webhook.client_config.ca_bundle.as_ref();
    let bundle = bundle.map(|bundle| bundle.0.as_slice()).unwrap_or_default();
    let selector = webhook.namespace_selector.as_ref();
    let selector = selector.and_then(|selector| selector.match_expressions.as_ref());
    let excluded = selector
        .into_iter()
        .flatten()
        .filter(|one| one.key == NAMESPACE && one.operator == "NotIn");
    let excluded: BTreeSet<_> = excluded
        .flat_map(|one| one.values.iter().flatten().cloned())
        .collect();
    OurWebhook {
        reinvoked: webhook.reinvocation_policy.as_deref() == Some("IfNeeded"),
        ignores_failures: webhook.failure_policy.as_deref() == Some("Ignore"),
        timeout: Duration::from_secs(u64::try_from(seconds).unwrap_or_default()),
        trusted: Cert::all_in(bundle).map_err(|error| error.to_string()),
        excluded,
    }
}
