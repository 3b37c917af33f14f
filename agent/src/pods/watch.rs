//! The API server's watch of this node's accelerated pods. One watch; a relist is a full replacement; when the API server
//! is away it is asked again after a growing, jittered pause, and what was told last stays true meanwhile.

use std::{future::Future, pin::pin};

use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Client,
    api::Api,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Config, Event, watcher},
    },
};
use sidestep_contract::keys;

use super::{
    observed::{Change, ObservedPod},
    timing::{Pauses, longest_watch},
};

/// Which pods are a node's.
///
/// The list comes from the API server's cache, which is indexed by node: pages, and the newest state, come from etcd, which
/// would read the pods of all nodes for each of them. What is a little old the watch that follows puts right.
pub fn accelerated_on(node: &str) -> Config {
    let config = Config::default()
        .fields(&format!("spec.nodeName={node}"))
        .labels(keys::ACCELERATED)
        .timeout(longest_watch())
        .any_semantic();
    // With a page size the client leaves `resourceVersion=0` out.
    Config {
        page_size: None,
        ..config
    }
}

/// Follows these pods for ever.
pub fn follow(
    client: Client,
    selection: Config,
    failed: impl Fn(&watcher::Error) + Send,
    tell: impl Fn(Change) + Send,
) -> impl Future<Output = ()> + Send {
    let api: Api<Pod> = Api::all(client);
    let events = watcher(api, selection).backoff(Pauses::default());
    read(events, failed, tell)
}

/// Turns a watch's events into changes. What is no change is told, too.
async fn read(
    events: impl Stream<Item = Result<Event<Pod>, watcher::Error>> + Send,
    failed: impl Fn(&watcher::Error) + Send,
    tell: impl Fn(Change) + Send,
) {
    let mut listed = Vec::new();
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => listed.extend(ObservedPod::read(&pod)),
            Ok(Event::InitDone) => tell(Change::All(std::mem::take(&mut listed))),
            Ok(Event::Apply(pod)) => {
                if let Some(told) = ObservedPod::read(&pod) {
                    tell(Change::One(Box::new(told)));
                }
            }
            Ok(Event::Delete(pod)) => {
                if let Some(told) = ObservedPod::read(&pod) {
                    tell(Change::Gone(told.name, told.uid));
                }
            }
            Err(error) => {
                failed(&error);
                tracing::warn!(%error, "the watch of this node's pods failed; will retry");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use futures_util::stream;
    use serde_json::json;

    use super::*;

    fn pod(name: &str) -> Pod {
        let uid = format!("0f3a6a0e-1c2b-4d5e-8f90-{name:0>12}");
        let pod = json!({"metadata": {"namespace": "n", "name": name, "uid": uid}});
        serde_json::from_value(pod).expect("a pod")
    }

    /// What is told, in short, and how many failures.
    async fn changes(events: Vec<Result<Event<Pod>, watcher::Error>>) -> (Vec<String>, usize) {
        let told = Mutex::new(Vec::new());
        let failures = AtomicUsize::new(0);
        let failed = |_: &watcher::Error| {
            failures.fetch_add(1, Ordering::Relaxed);
        };
        read(stream::iter(events), failed, |change| {
            let short = match change {
                Change::All(all) => {
                    let names: Vec<_> = all.iter().map(|told| told.name.name.clone()).collect();
                    format!("all {}", names.join(" "))
                }
                Change::One(told) => format!("one {}", told.name.name),
                Change::Gone(name, _) => format!("gone {}", name.name),
            };
            told.lock().expect("one thread").push(short);
        })
        .await;
        (
            told.into_inner().expect("one thread"),
            failures.into_inner(),
        )
    }

    #[tokio::test]
    async fn a_list_is_told_when_it_is_complete() {
        let (told, _) = changes(vec![
            Ok(Event::Init),
            Ok(Event::InitApply(pod("a"))),
            Ok(Event::InitApply(pod("b"))),
            Ok(Event::InitDone),
            Ok(Event::Apply(pod("c"))),
            Ok(Event::Delete(pod("a"))),
        ])
        .await;
        assert_eq!(told, ["all a b", "one c", "gone a"]);
    }

    #[tokio::test]
    async fn a_list_that_broke_off_is_not_told_and_the_next_stands_alone() {
        let (told, failures) = changes(vec![
            Ok(Event::Init),
            Ok(Event::InitApply(pod("a"))),
            Err(watcher::Error::NoResourceVersion),
            Ok(Event::Init),
            Ok(Event::InitApply(pod("b"))),
            Ok(Event::InitDone),
        ])
        .await;
        assert_eq!(told, ["all b"]);
        assert_eq!(failures, 1);
    }
}
