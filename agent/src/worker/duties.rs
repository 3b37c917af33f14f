//! What the thread does on a Kubernetes node besides: it shows that it lives, takes sightings, proves the programs again, counts,
//! and reports what a person should look at.

use std::sync::mpsc::{Receiver, channel};

use sidestep_contract::keys;
use sidestep_ebpf_common::{Row, flow::FLOW_SHARE};
use sidestep_runtime::Heartbeat;

use super::{Proof, SightingQueue};
use crate::{
    complaint::Complaint,
    metrics::Metrics,
    pods::{Source, wanted::PodName},
    reconcile::{PodEvent, Tell},
    report::{Report, Reports, Subject},
};

/// What is only done on a node.
pub(crate) struct Duties {
    pub(crate) heartbeat: Heartbeat,
    pub(crate) sightings: SightingQueue,
    pub(crate) proof: Proof,
    pub(crate) metrics: Metrics,
    pub(crate) notes: Receiver<Note>,
    pub(crate) reports: Reports,
    pub(crate) complaint: Complaint,
}

/// An Event that is to be sent.
pub(crate) struct Note {
    name: PodName,
    reason: &'static str,
    text: String,
}

/// Counts what happens to pods, and notes what is to be reported.
pub(crate) fn tell(metrics: Metrics) -> (Tell, Receiver<Note>) {
    let (sender, notes) = channel();
    let tell = move |name: &PodName, event: PodEvent<'_>| {
        if let Some((reason, text)) = count(&metrics, &event) {
            let name = name.clone();
            let _the_agent_ended = sender.send(Note { name, reason, text });
        }
    };
    (Box::new(tell), notes)
}

impl Duties {
    /// Sends what happened meanwhile as Events.
    pub(super) fn report(&self, source: &impl Source) {
        for Note { name, reason, text } in self.notes.try_iter() {
            if let Some(uid) = source.uid(&name).cloned() {
                self.reports.send(Report {
                    subject: Subject::Pod(name, uid),
                    reason,
                    note: text,
                });
            }
        }
    }
}

/// Counts what happened; the answer is the Event that somebody should see.
fn count(metrics: &Metrics, event: &PodEvent<'_>) -> Option<(&'static str, String)> {
    match event {
        PodEvent::Armed { took, reaction } => {
            metrics.armed(*took, *reaction);
            None
        }
        PodEvent::Failed(error) => {
            metrics.failed(error.reason());
            let note = format!("Sidestep cannot take over yet, and the gate waits: {error}");
            Some(("NotArmed", note))
        }
        PodEvent::Left(left) => {
            metrics.left(left.reason());
            Some((
                "NotAccelerated",
                format!("Sidestep leaves this pod alone: {left}"),
            ))
        }
        PodEvent::NoSandbox => {
            metrics.failed("no-sandbox");
            let note = "none of the pod's processes was seen in a network namespace of its own: does its sandbox start?";
            Some(("NoSandbox", note.to_owned()))
        }
        PodEvent::Refused {
            row: Row::RawRefused,
            count,
        } => {
            metrics.raw_refused(*count);
            let note = format!(
                "a program asked for a raw TCP socket, whose packets would go around the proxy, and got \
                 \"Operation not permitted\"; iptables-legacy does so, too. The pod's annotation {}=allow lets it",
                keys::RAW_SOCKETS
            );
            Some(("RawSocketRefused", note))
        }
        PodEvent::Refused { row: _, count } => {
            metrics.refused(*count);
            let note = format!(
                "connections were refused: it has {FLOW_SHARE} captured connections open, the most that one pod may have, or \
                 all pods of the node have as many as can be remembered; does a program leak connections?"
            );
            Some(("ConnectionsRefused", note))
        }
        PodEvent::Released => {
            metrics.released();
            None
        }
    }
}
