//! What goes into the archive. What cannot be read is a line of `errors.txt`.

use std::fmt::Debug;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams, LogParams};
use kube::{Client, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::clean;
use crate::{check, cluster};

/// A file of the archive.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

/// The files so far, and what could not be read.
#[derive(Default)]
struct Parts {
    all: Vec<Part>,
    errors: String,
}

impl Parts {
    fn add(&mut self, name: String, content: Result<String, impl ToString>) {
        match content {
            Ok(text) => self.all.push(Part {
                name,
                content: text.into_bytes(),
            }),
            Err(error) => {
                let line = [&name, ": ", &error.to_string(), "\n"];
                self.errors.push_str(&line.concat());
            }
        }
    }

    fn add_json(&mut self, name: &str, content: Result<Value, impl ToString>) {
        self.add(name.to_owned(), content.map(|value| format!("{value:#}\n")));
    }
}

/// Reads everything. An error means that the API server does not answer.
pub(super) async fn read(client: &Client, home: &str, lines: u32) -> anyhow::Result<Vec<Part>> {
    let mut parts = Parts::default();
    let checked = Box::pin(check::checked(client, home)).await?;
    parts.add_json("check.json", Ok::<_, String>(checked.findings));
    let about = json!({"program": env!("CARGO_PKG_VERSION"), "namespace": home});
    parts.add_json("about.json", Ok::<_, String>(about));
    parts.add_json("events.json", checked.events);
    for (node, answer) in checked.agents {
        let status = answer.map(|status| json!(status));
        parts.add_json(&format!("agents/{node}.json"), status);
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let registrations: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), home);
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), home);
    let pods: Api<Pod> = Api::namespaced(client.clone(), home);
    let everything = ListParams::default();
    let ours = ListParams::default().labels(cluster::OURS);
    parts.add_json("nodes.json", list(&nodes, &everything, clean::node).await);
    let all = list(&registrations, &everything, clean::registration).await;
    parts.add_json("mutatingwebhookconfigurations.json", all);
    parts.add_json(
        "deployments.json",
        list(&deployments, &ours, clean::workload).await,
    );
    parts.add_json("daemonsets.json", list(&sets, &ours, clean::workload).await);
    parts.add_json("pods.json", list(&pods, &ours, clean::pod).await);
    logs(&mut parts, &pods, &ours, lines).await;
    let errors = std::mem::take(&mut parts.errors);
    parts.add("errors.txt".to_owned(), Ok::<_, String>(errors));
    Ok(parts.all)
}

/// The objects of a kind, each cleaned.
async fn list<K>(
    api: &Api<K>,
    which: &ListParams,
    clean: impl Fn(&Value) -> Value,
) -> kube::Result<Value>
where
    K: Clone + DeserializeOwned + Debug + Serialize,
{
    let mut all = Vec::new();
    cluster::each(api, which.clone(), |object| all.push(clean(&json!(object)))).await?;
    Ok(Value::Array(all))
}

/// The last lines of each container; also of the one before it, if it was restarted.
async fn logs(parts: &mut Parts, api: &Api<Pod>, ours: &ListParams, lines: u32) {
    let mut containers = Vec::new();
    let take = |pod: Pod| {
        let statuses = pod.status.as_ref();
        let statuses = statuses.and_then(|status| status.container_statuses.as_deref());
        for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
            let name = &container.name;
            let mut statuses = statuses.unwrap_or_default().iter();
            let status = statuses.find(|one| one.name == *name);
            containers.push((pod.name_any(), name.clone(), false));
            if status.is_some_and(|status| status.restart_count > 0) {
                containers.push((pod.name_any(), name.clone(), true));
            }
        }
    };
    let listed = cluster::each(api, ours.clone(), take).await;
    if let Err(error) = listed {
        parts.add("logs".to_owned(), Err(error));
        return;
    }
    for (pod, container, previous) in containers {
        let wanted = LogParams {
            container: Some(container.clone()),
            tail_lines: Some(lines.into()),
            timestamps: true,
            previous,
            ..LogParams::default()
        };
        let log = api.logs(&pod, &wanted).await;
        let which = if previous { ".before" } else { "" };
        parts.add(format!("logs/{pod}.{container}{which}.log"), log);
    }
}
