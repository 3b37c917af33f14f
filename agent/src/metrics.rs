//! What is counted. Names and labels are stable; buckets are not.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use sidestep_ebpf_common::sighting::Seen;

use crate::{shortcut::ShortcutStatus, status::PodState};

/// The agent's metrics. A clone is the same.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    pods: Family<State, Gauge>,
    lingering: Gauge,
    shortcut: Family<Part, Gauge>,
    shortcut_ends: Gauge,
    shortcut_counts: Family<What, Counter>,
    programming: Histogram,
    reaction: Histogram,
    failures: Family<Reason, Counter>,
    left: Family<Reason, Counter>,
    sightings: Family<Kind, Counter>,
    lost: Counter,
    hearing: Gauge,
    restored: Counter,
    released: Counter,
    refused: Counter,
    raw_refused: Counter,
    watch: Gauge,
    watch_errors: Counter,
    events: Family<Outcome, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Part {
    part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct What {
    what: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    seen: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// Seconds, from what programming takes to what nobody should wait for.
const SECONDS: [f64; 10] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0,
];

impl Default for Metrics {
    fn default() -> Self {
        let mut all = Registry::with_prefix("sidestep_agent");
        let metrics = Self {
            registry: Arc::default(),
            pods: Family::default(),
            lingering: Gauge::default(),
            shortcut: Family::default(),
            shortcut_ends: Gauge::default(),
            shortcut_counts: Family::default(),
            programming: Histogram::new(SECONDS),
            reaction: Histogram::new(SECONDS),
            failures: Family::default(),
            left: Family::default(),
            sightings: Family::default(),
            lost: Counter::default(),
            hearing: Gauge::default(),
            restored: Counter::default(),
            released: Counter::default(),
            refused: Counter::default(),
            raw_refused: Counter::default(),
            watch: Gauge::default(),
            watch_errors: Counter::default(),
            events: Family::default(),
        };
        let m = &metrics;
        all.register(
            "pods",
            "Accelerated pods of this node, by state",
            m.pods.clone(),
        );
        all.register(
            "lingering_namespaces",
            "Network namespaces that stay armed until they are gone, though no pod wants them any more",
            m.lingering.clone(),
        );
        all.register(
            "shortcut",
            "1 where it is proven on this kernel and in place, by part: sidecars, applications that do not ask for it, into applications",
            m.shortcut.clone(),
        );
        all.register(
            "shortcut_ends",
            "Ends of open connections that take part in the shortcut",
            m.shortcut_ends.clone(),
        );
        all.register(
            "shortcut_seen",
            "What its programs counted: messages redirected and their bytes, messages and sockets left to TCP by reason, ends, hazards",
            m.shortcut_counts.clone(),
        );
        all.register(
            "programming_duration_seconds",
            "From looking at a pod's network namespace to its record",
            m.programming.clone(),
        );
        all.register(
            "reaction_duration_seconds",
            "From a pod's first process in its network namespace, as the kernel tells it, to its record",
            m.reaction.clone(),
        );
        all.register(
            "arming_failures",
            "Pods that could not be armed at first, by reason",
            m.failures.clone(),
        );
        all.register(
            "pods_left",
            "Pods with Sidestep's label that are left to Istio, by reason",
            m.left.clone(),
        );
        m.register_sightings(&mut all);
        m.register_changes(&mut all);
        all.register(
            "watch_connected",
            "1 while the API server answers the watch of this node's pods",
            m.watch.clone(),
        );
        all.register(
            "watch_errors",
            "Failures of that watch, each tried again",
            m.watch_errors.clone(),
        );
        all.register(
            "events",
            "Kubernetes Events: sent, failed, or dropped by the rate limit",
            m.events.clone(),
        );
        Self {
            registry: Arc::new(all),
            ..metrics
        }
    }
}

impl Metrics {
    fn register_changes(&self, all: &mut Registry) {
        all.register(
            "connections_refused",
            "Connections that were refused because their pod, or the node, has as many captured ones open as it may",
            self.refused.clone(),
        );
        all.register(
            "raw_sockets_refused",
            "Raw TCP sockets that were refused to programs of accelerated pods, since their packets would go around the proxy",
            self.raw_refused.clone(),
        );
        all.register(
            "restored",
            "Links and pins that somebody removed, and that were restored",
            self.restored.clone(),
        );
        all.register(
            "released",
            "Network namespaces taken out of the kernel",
            self.released.clone(),
        );
    }

    fn register_sightings(&self, all: &mut Registry) {
        all.register(
            "sightings",
            "Network namespaces that programs came upon, by how they were seen",
            self.sightings.clone(),
        );
        all.register(
            "sightings_lost",
            "Such namespaces that were too many to be looked at one by one; every pod that waits was looked at instead",
            self.lost.clone(),
        );
        all.register(
            "hearing",
            "1 while the programs' sightings are heard; else waiting pods are looked for every few seconds",
            self.hearing.clone(),
        );
    }

    /// A pod is armed; `reaction` is the time since the kernel told of it.
    pub fn armed(&self, programming: Duration, reaction: Option<Duration>) {
        self.programming.observe(programming.as_secs_f64());
        if let Some(reaction) = reaction {
            self.reaction.observe(reaction.as_secs_f64());
        }
    }

    /// A pod could not be armed.
    pub fn failed(&self, reason: &'static str) {
        self.failures.get_or_create(&Reason { reason }).inc();
    }

    /// A pod is left to Istio.
    pub fn left(&self, reason: &'static str) {
        self.left.get_or_create(&Reason { reason }).inc();
    }

    /// So many raw TCP sockets were refused.
    pub fn raw_refused(&self, count: u64) {
        self.raw_refused.inc_by(count);
    }

    /// So many connections were refused because a pod, or the node, has too many open.
    pub fn refused(&self, count: u64) {
        self.refused.inc_by(count);
    }

    /// A namespace was let go.
    pub fn released(&self) {
        self.released.inc();
    }

    /// A program told of a namespace.
    pub fn sighted(&self, seen: u32) {
        if let Some(seen) = Seen::from_number(seen) {
            self.sightings
                .get_or_create(&Kind { seen: seen.name() })
                .inc();
        }
    }

    /// So many of what programs told were dropped.
    pub fn sightings_lost(&self, count: u64) {
        self.lost.inc_by(count);
    }

    /// Whether what programs tell is heard.
    pub fn hears(&self, does: bool) {
        self.hearing.set(i64::from(does));
    }

    /// Links or pins were restored.
    pub fn restored(&self, count: usize) {
        self.restored
            .inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// What became of an Event: `sent`, `failed` or `dropped`.
    pub fn event(&self, outcome: &'static str) {
        self.events.get_or_create(&Outcome { outcome }).inc();
    }

    /// The API server answered the watch of this node's pods.
    pub fn watch_answers(&self) {
        self.watch.set(1);
    }

    /// That watch failed.
    pub fn watch_failed(&self) {
        self.watch.set(0);
        self.watch_errors.inc();
    }

    /// All of them in the OpenMetrics text format, with the pods' states and the shortcut's as they are now.
    pub fn text(
        &self,
        states: &[PodState],
        lingering: usize,
        shortcut: &ShortcutStatus,
    ) -> Result<String, fmt::Error> {
        self.tell_of(shortcut);
        for state in PodState::ALL {
            let count = states.iter().filter(|of| **of == state).count();
            let state = self.pods.get_or_create(&State {
                state: state.name(),
            });
            state.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.lingering
            .set(i64::try_from(lingering).unwrap_or(i64::MAX));
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

impl Metrics {
    fn tell_of(&self, shortcut: &ShortcutStatus) {
        let on = |without: &Option<String>| shortcut.on && without.is_none();
        for (part, on) in [
            ("sidecars", shortcut.on),
            ("applications", on(&shortcut.not_from_applications)),
            ("into_applications", on(&shortcut.not_into_applications)),
        ] {
            self.shortcut
                .get_or_create(&Part { part })
                .set(i64::from(on));
        }
        self.shortcut_ends
            .set(i64::try_from(shortcut.ends).unwrap_or(i64::MAX));
        for (what, count) in &shortcut.counts {
            let counter = self
                .shortcut_counts
                .get_or_create(&What { what: what.clone() });
            // The kernel's counters go on where an agent starts anew.
            counter.inner().store(*count, Ordering::Relaxed);
        }
    }
}
