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

use crate::pods::{Change, Told};

/// Pods per answer of a list: what is listed stands in memory as a whole, and a pod may be large.
const PAGE: u32 = 50;

/// Hears of the watch itself.
pub trait Health: Send + Sync {
    /// It answers, or it failed.
    fn answers(&self, does: bool);
}

/// Follows the pods of a node for ever.
pub fn follow(
    client: Client,
    node: String,
    health: impl Health,
    tell: impl Fn(Change) + Send,
) -> impl Future<Output = ()> + Send {
    let config = Config::default()
        .fields(&format!("spec.nodeName={node}"))
        .labels(keys::ACCELERATED)
        .page_size(PAGE);
    let api: Api<Pod> = Api::all(client);
    read(watcher(api, config).default_backoff(), health, tell)
}

/// Turns a watch's events into changes. What is no change is told, too.
async fn read(
    events: impl Stream<Item = Result<Event<Pod>, watcher::Error>> + Send,
    health: impl Health,
    tell: impl Fn(Change) + Send,
) {
    let mut listed = Vec::new();
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        health.answers(event.is_ok());
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => listed.extend(Told::read(&pod)),
            Ok(Event::InitDone) => tell(Change::All(std::mem::take(&mut listed))),
            Ok(Event::Apply(pod)) => {
                if let Some(told) = Told::read(&pod) {
                    tell(Change::One(told));
                }
            }
            Ok(Event::Delete(pod)) => {
                if let Some(told) = Told::read(&pod) {
                    tell(Change::Gone(told.name, told.uid));
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the watch of this node's pods failed and is tried again");
            }
        }
    }
}
