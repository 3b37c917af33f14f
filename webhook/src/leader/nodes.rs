//! Nodes that cannot run Sidestep get a label that says why, so that pods can be kept off them.
//!
//! Only facts that the node reports about itself count, and only those that no agent could change. A node that reports
//! nothing yet, or something unreadable, gets no label: its pods wait at their gates, which is safe.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use sidestep_contract::keys;
use sidestep_contract::node::{Unfit, unfit};
use tokio::time::{Instant, sleep_until};

/// What webhooks before arm64 was supported wrote in the place of [`Unfit::OtherArchitecture`]'s word.
const FORMER_WORD: &str = "not-amd64";

/// Time until all nodes are looked at again after one could not be labelled. The time grows from the first to the second.
const RETRY: Duration = Duration::from_secs(5);
const LONGEST_RETRY: Duration = Duration::from_mins(5);

/// The change to the label: `None` for no change, `Some(None)` to remove it. A value that is none of ours was written by
/// the cluster's owner, and stays.
pub fn change(node: &Node) -> Option<Option<&'static str>> {
    let wanted = unfit(node).map(Unfit::word);
    let found = node.labels().get(keys::UNSUPPORTED).map(String::as_str);
    let is_ours = |value| value == FORMER_WORD || Unfit::WORDS.contains(&value);
    (found != wanted && found.is_none_or(is_ours)).then_some(wanted)
}

/// Labels nodes for as long as the future is polled.
pub(super) async fn label(client: Client) {
    let api: Api<Node> = Api::all(client);
    let mut trouble = Trouble::default();
    loop {
        label_until_retry(&api, &mut trouble).await;
    }
}

/// The failures to label nodes.
#[derive(Debug, Default)]
struct Trouble {
    /// The last logged failure: each failure is logged once.
    said: Option<String>,
    /// The last delay before a retry.
    waited: Duration,
    /// When all nodes are looked at again: a node that could not be labelled may cause no event for long.
    retry: Option<Instant>,
}

impl Trouble {
    fn say(&mut self, error: String) {
        if self.said.as_ref() != Some(&error) {
            tracing::warn!(%error, "could not label a node that cannot run Sidestep; will retry");
        }
        self.said = Some(error);
    }

    fn failed(&mut self, error: String) {
        self.say(error);
        if self.retry.is_none() {
            self.waited = (self.waited * 2).clamp(RETRY, LONGEST_RETRY);
            self.retry = Some(Instant::now() + self.waited);
        }
    }

    /// Notes that all nodes were looked at.
    fn listed(&mut self) {
        if self.retry.is_none() {
            *self = Self::default();
        }
    }
}

/// Labels nodes until it is time to look at all of them again.
async fn label_until_retry(api: &Api<Node>, trouble: &mut Trouble) {
    // A node's status is large, and one at a time is all that is needed.
    let few = Config::default().page_size(50);
    let mut events = pin!(watcher(api.clone(), few).default_backoff());
    trouble.retry = None;
    loop {
        let retry = trouble.retry;
        let event = tokio::select! {
            event = events.next() => event,
            () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => return,
        };
        match event {
            None => return,
            Some(Ok(Event::InitApply(node) | Event::Apply(node))) => {
                if let Err(error) = relabel(api, &node).await {
                    trouble.failed(error);
                }
            }
            Some(Ok(Event::InitDone)) => trouble.listed(),
            Some(Ok(Event::Init | Event::Delete(_))) => {}
            // The watch begins anew by itself, with a list.
            Some(Err(error)) => trouble.say(error.to_string()),
        }
    }
}

async fn relabel(api: &Api<Node>, node: &Node) -> Result<(), String> {
    let Some(value) = change(node) else {
        return Ok(());
    };
    let name = node.name_any();
    let patch = patch(node, value);
    match api
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => {
            tracing::info!(
                node = name,
                unsupported = value,
                "changed the label of a node"
            );
            Ok(())
        }
        // The node was changed in the meantime, which causes another event, or it is gone.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(format!("node {name}: {error}")),
    }
}

/// On condition that the node is unchanged since the read: its owner may have written a value of their own.
fn patch(node: &Node, value: Option<&str>) -> Value {
    json!({"metadata": {
        "labels": {keys::UNSUPPORTED: value},
        "resourceVersion": node.metadata.resource_version,
    }})
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::time::timeout;

    use super::*;
    use crate::leader::fake;

    fn node(os: &str, arch: &str, kernel: &str, labels: &Value) -> Node {
        let node = json!({
            "metadata": {"name": "n", "resourceVersion": "7", "labels": labels},
            "status": {"nodeInfo": {
                "operatingSystem": os, "architecture": arch, "kernelVersion": kernel,
                "bootID": "", "containerRuntimeVersion": "", "kubeProxyVersion": "",
                "kubeletVersion": "", "machineID": "", "osImage": "", "systemUUID": "",
            }},
        });
        serde_json::from_value(node).expect("a node")
    }

    #[test]
    fn the_label_comes_changes_and_goes_with_the_reason_and_others_words_stay() {
        let cases = [
            ("6.1.0", None, None),
            ("5.10.0", None, Some(Some("kernel-too-old"))),
            ("5.10.0", Some("kernel-too-old"), None),
            (
                "5.10.0",
                Some("other-architecture"),
                Some(Some("kernel-too-old")),
            ),
            ("6.1.0", Some("not-amd64"), Some(None)),
            ("6.1.0", Some("kernel-too-old"), Some(None)),
            ("6.1.0", Some("true"), None),
            ("6.1.0", Some(""), None),
            ("5.10.0", Some("maintenance"), None),
        ];
        for (kernel, label, wanted) in cases {
            let labels = label.map_or(json!({}), |label| json!({keys::UNSUPPORTED: label}));
            let node = node("linux", "amd64", kernel, &labels);
            assert_eq!(change(&node), wanted, "{kernel} {label:?}");
        }
    }

    /// One node is refused three times; another one comes after it in the list, and neither says anything again.
    #[tokio::test(start_paused = true)]
    async fn a_node_that_could_not_be_labelled_is_labelled_later_and_holds_up_no_other() {
        let nodes = Mutex::new(["refused", "other"].map(|name| {
            let mut node = node("linux", "amd64", "5.10.0", &json!({}));
            node.metadata.name = Some(name.to_owned());
            node
        }));
        let patched = Arc::new(Mutex::new(Vec::new()));
        let client = fake::client({
            let patched = Arc::clone(&patched);
            move |asked| {
                let mut nodes = nodes.lock().expect("nobody panics");
                if asked.method == "GET" {
                    let list = json!({"apiVersion": "v1", "kind": "NodeList",
                        "metadata": {"resourceVersion": "7"}, "items": *nodes});
                    return (!asked.uri.contains("watch=")).then_some((200, list));
                }
                let name = asked.uri.rsplit('/').next().unwrap_or_default();
                let name = name.trim_end_matches('?').to_owned();
                let mut patched = patched.lock().expect("nobody panics");
                patched.push((name.clone(), Instant::now()));
                if name == "refused" && patched.len() < 5 {
                    return Some(fake::refusal(403));
                }
                let mut nodes = nodes.iter_mut();
                let node = nodes.find(|node| node.metadata.name.as_ref() == Some(&name))?;
                let labels = asked.body["metadata"]["labels"].clone();
                node.metadata.labels = serde_json::from_value(labels).ok();
                Some((200, json!(node)))
            }
        });
        let begun = Instant::now();
        let ended = timeout(Duration::from_mins(10), label(client)).await;
        assert!(ended.is_err(), "it never ends");
        let patched = patched.lock().expect("nobody panics");
        let patched = patched
            .iter()
            .map(|(name, at)| (name.as_str(), (*at - begun).as_secs()));
        let wanted = [
            ("refused", 0),
            ("other", 0),
            ("refused", 5),
            ("refused", 15),
            ("refused", 35),
        ];
        assert_eq!(patched.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_patch_touches_one_label_of_the_node_that_was_seen() {
        let patch = patch(&node("linux", "amd64", "6.1", &json!({})), None);
        let wanted = json!({"metadata": {
            "labels": {"sidestep.dev/unsupported": null}, "resourceVersion": "7"}});
        assert_eq!(patch, wanted);
    }
}
