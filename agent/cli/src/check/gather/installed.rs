//! The chart's objects.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, PodTemplateSpec};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use sidestep_certs::cert::Cert;

use super::certificates::serving;
use super::known;
use crate::check::facts::{Known, LeaseFact, NamespaceFact, Workload};
use crate::cluster::OURS;

/// The chart's name for the webhook: its Deployment, Service and Lease.
pub(super) const WEBHOOK: &str = "sidestep-webhook";

/// The chart's name for the agents' DaemonSet.
const AGENT: &str = "sidestep-agent";

/// The label by which a namespace enforces a Pod Security Standard.
const ENFORCES: &str = "pod-security.kubernetes.io/enforce";

/// What is installed.
pub(super) struct Installed {
    pub(super) namespace: Known<Option<NamespaceFact>>,
    pub(super) webhook: Known<Option<Workload>>,
    pub(super) daemonset: Known<Option<Workload>>,
    pub(super) certificates: Known<Vec<Cert>>,
    pub(super) policies: Known<BTreeSet<String>>,
    pub(super) lease: Known<Option<LeaseFact>>,
}

pub(super) async fn installed(client: &Client, home: &str) -> Installed {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), home);
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), home);
    let leases: Api<Lease> = Api::namespaced(client.clone(), home);
    let (namespace, webhook, daemonset, policies, lease) = tokio::join!(
        namespaces.get_opt(home),
        deployments.get_opt(WEBHOOK),
        sets.get_opt(AGENT),
        policies(client),
        leases.get_opt(WEBHOOK),
    );
    let webhook = known(webhook);
    let certificates = match &webhook {
        Ok(webhook) => serving(client, home, webhook.as_ref()).await,
        Err(why) => Err(why.clone()),
    };
    Installed {
        namespace: known(namespace).map(|found| {
            found.map(|namespace| NamespaceFact {
                enforces: namespace.labels().get(ENFORCES).cloned(),
            })
        }),
        webhook: webhook.map(|found| found.as_ref().map(of_deployment)),
        certificates,
        daemonset: known(daemonset).map(|found| found.as_ref().map(of_set)),
        policies: known(policies),
        lease: known(lease).map(|found| {
            found.map(|lease| {
                let spec = lease.spec.unwrap_or_default();
                LeaseFact {
                    holder: spec.holder_identity.unwrap_or_default(),
                    renewed: spec.renew_time.map(|time| time.0),
                }
            })
        }),
    }
}

/// Policies of ours that are there and bound.
async fn policies(client: &Client) -> kube::Result<BTreeSet<String>> {
    let ours = ListParams::default().labels(OURS);
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let (policies, bindings) = tokio::try_join!(policies.list(&ours), bindings.list(&ours))?;
    let there: BTreeSet<_> = policies.iter().map(ResourceExt::name_any).collect();
    let bound = bindings
        .into_iter()
        .filter_map(|binding| binding.spec?.policy_name);
    Ok(bound.filter(|name| there.contains(name)).collect())
}

fn of_deployment(deployment: &Deployment) -> Workload {
    let spec = deployment.spec.as_ref();
    let status = deployment.status.as_ref();
    Workload {
        desired: spec.and_then(|spec| spec.replicas).unwrap_or(1),
        ready: status
            .and_then(|status| status.available_replicas)
            .unwrap_or(0),
        image: image(spec.map(|spec| &spec.template)),
    }
}

fn of_set(set: &DaemonSet) -> Workload {
    let status = set.status.as_ref();
    Workload {
        desired: status.map_or(0, |status| status.desired_number_scheduled),
        ready: status.map_or(0, |status| status.number_ready),
        image: image(set.spec.as_ref().map(|spec| &spec.template)),
    }
}

fn image(template: Option<&PodTemplateSpec>) -> String {
    let pod = template.and_then(|template| template.spec.as_ref());
    let first = pod.and_then(|pod| pod.containers.first());
    first
        .and_then(|first| first.image.clone())
        .unwrap_or_default()
}
