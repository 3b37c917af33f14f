//! Kubernetes Events on pods that a person should look at, and on the node. What cannot be sent at once is dropped and
//! counted: nothing waits for the API server.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use sidestep_contract::{keys, reporter};
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

use crate::{
    metrics::Metrics,
    pods::wanted::{PodName, PodUid},
};

/// Events that may be sent at once …
const BURST: f64 = 25.0;
/// … and then each second.
const RATE: f64 = 1.0;
/// Longest note that the API server takes, bytes.
const NOTE: usize = 1024;

/// What an Event is about.
#[derive(Debug)]
pub enum Subject {
    /// A pod, and its uid, without which nobody sees the Event at the pod.
    Pod(PodName, PodUid),
    /// The node of this name.
    Node(String),
}

/// One Event.
#[derive(Debug)]
pub struct Report {
    /// At what people see it.
    pub subject: Subject,
    /// The reason, in one word.
    pub reason: &'static str,
    /// For people.
    pub note: String,
}

/// Takes Events, and never blocks.
#[derive(Clone, Debug)]
pub struct Reports {
    queue: Sender<Report>,
    metrics: Metrics,
}

impl Reports {
    /// Starts to send Events; `instance` is the name of the agent's own pod.
    pub fn start(
        client: Client,
        instance: Option<String>,
        metrics: Metrics,
    ) -> (Self, impl Future<Output = ()> + use<>) {
        let (queue, waiting) = channel(64);
        let reporter = Reporter {
            controller: reporter::AGENT.to_owned(),
            instance,
        };
        let recorder = Recorder::new(client, reporter);
        let task = send(waiting, recorder, metrics.clone());
        (Self { queue, metrics }, task)
    }

    /// Says at the node why the agent is not ready; and whether it never will be, which the webhook's leader reads.
    pub(crate) fn node(&self, name: String, why: &str, for_good: bool) {
        self.send(Report {
            subject: Subject::Node(name),
            reason: if for_good {
                keys::CANNOT_RUN
            } else {
                "SidestepNotReady"
            },
            note: format!("Sidestep takes over no new pod on this node: {why}"),
        });
    }

    /// Hands one over.
    pub fn send(&self, report: Report) {
        match self.queue.try_send(report) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => self.metrics.event("dropped"),
        }
    }
}

async fn send(mut waiting: Receiver<Report>, recorder: Recorder, metrics: Metrics) {
    let mut limit = Limit::new(Instant::now());
    while let Some(report) = waiting.recv().await {
        if !limit.allows(Instant::now()) {
            metrics.event("dropped");
            continue;
        }
        let (event, regarding) = event(report);
        let sent = tokio::time::timeout(
            Duration::from_secs(10),
            recorder.publish(&event, &regarding),
        )
        .await;
        match sent {
            Ok(Ok(())) => metrics.event("sent"),
            Ok(Err(error)) => {
                tracing::debug!(%error, "could not write an Event");
                metrics.event("failed");
            }
            Err(_) => metrics.event("failed"),
        }
    }
}

fn event(report: Report) -> (Event, ObjectReference) {
    let Report {
        subject,
        reason,
        mut note,
    } = report;
    note.truncate(note.floor_char_boundary(NOTE));
    let (action, kind, namespace, name, uid) = match subject {
        Subject::Pod(PodName { namespace, name }, uid) => {
            ("Arm", "Pod", Some(namespace), name, uid.to_string())
        }
        // The agent may not read nodes. With the name for a uid, as kubelet has it, `kubectl describe node` shows it.
        Subject::Node(name) => ("Start", "Node", None, name.clone(), name),
    };
    let event = Event {
        type_: EventType::Warning,
        reason: reason.to_owned(),
        note: Some(note),
        action: action.to_owned(),
        secondary: None,
    };
    let regarding = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(name),
        namespace,
        uid: Some(uid),
        ..ObjectReference::default()
    };
    (event, regarding)
}

/// A token bucket.
struct Limit {
    tokens: f64,
    at: Instant,
}

impl Limit {
    const fn new(now: Instant) -> Self {
        Self {
            tokens: BURST,
            at: now,
        }
    }

    fn allows(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + passed * RATE).min(BURST);
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_a_second() {
        let start = Instant::now();
        let mut limit = Limit::new(start);
        let passed = (0..100).filter(|_| limit.allows(start)).count();
        assert_eq!(passed, 25);
        assert!(!limit.allows(start + Duration::from_millis(500)));
        assert!(limit.allows(start + Duration::from_millis(1100)));
        assert!(!limit.allows(start + Duration::from_millis(1200)));
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let report = Report {
            subject: Subject::Node("n".to_owned()),
            reason: "NotArmed",
            note: "ä".repeat(1000),
        };
        let (event, _) = event(report);
        assert_eq!(event.note.map(|note| note.len()), Some(1024));
    }
}
