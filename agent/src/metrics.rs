//! What the agent counts. The list below is the only one: the exposition and the reference (`manifests/METRICS.md`) are made
//! of it.

mod shortcut;
mod snapshot;

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use sidestep_ebpf_common::{
    ABI_VERSION, Row, row::Verdict, shortcut::SHORTCUT_ABI_VERSION, sighting::Seen,
};
use sidestep_runtime::{Readiness, metrics::seconds};

pub use self::snapshot::{Occupancy, Snapshot};
use crate::status::PodState;

sidestep_runtime::metrics! {
    /// The agent's metrics. A clone is the same.
    pub struct Metrics = "sidestep_agent" {
        /// Always 1: the agent's version, and the versions of the layouts of its maps. Agents of one layout take over each
        /// other's pods.
        Stable build_info: Gauges["version", "abi", "shortcut_abi"],
        /// 1 while this condition of readiness is met, and otherwise 0. The agent is ready while all are met.
        Stable ready: Gauges["condition"],
        /// Accelerated pods of this node, by state. The reason says why a pod is pending or left to Istio.
        Stable pods: Gauges["state", "reason"],
        /// Network namespaces that stay armed until they are gone, though no pod wants them any more.
        Stable lingering_namespaces: Gauge,
        /// Armed network namespaces, by the layout of the maps that they depend on. There are two while a release with another
        /// layout rolls out.
        Unstable layout_namespaces: Gauges["layout"],
        /// The time that programming a pod took, from looking at its network namespace to its record.
        Stable programming_duration_seconds: Histogram,
        /// From a pod's first process in its network namespace, as the kernel reports it, to its record.
        Stable reaction_duration_seconds: Histogram,
        /// Pods that could not be armed at first, by reason.
        Stable arming_failures: Counters["reason"],
        /// Pods with Sidestep's label that are left to Istio, by reason.
        Stable pods_left: Counters["reason"],
        /// Decisions about connections, datagrams and sockets since the agent started, by the row of the specification and
        /// where that sends them. Read from the kernel every half a minute.
        Stable decisions: Counters["row", "verdict"],
        /// Connections that were refused because their pod, or the node, has as many captured ones open as it may.
        Stable connections_refused: Counter,
        /// Raw TCP sockets that were refused to programs of accelerated pods, since their packets would bypass the proxy.
        Stable raw_sockets_refused: Counter,
        /// Entries of the kernel's maps of armed pods and of captured connections, as of the last half a minute.
        Unstable map_entries: Gauges["map"],
        /// How many entries these maps can hold.
        Unstable map_capacity: Gauges["map"],
        /// When the agent last saw its programs act, on a connection of its own; it tries once a minute.
        Stable last_proof_timestamp_seconds: Moment,
        /// Such proofs, by outcome: passed or failed.
        Stable proofs: Counters["outcome"],
        /// Links and pins that somebody removed, and that were restored.
        Stable restored: Counter,
        /// Network namespaces that were taken out of the kernel.
        Stable released: Counter,
        /// 1 where a part of the shortcut is proven on this kernel and in place: between sidecars, from applications that do not
        /// ask for it, into applications.
        Stable shortcut: Gauges["part"],
        /// Ends of open connections that take part in the shortcut.
        Stable shortcut_ends: Gauge,
        /// Messages of connections that take part: redirected, or sent by TCP for a reason.
        Stable shortcut_messages: Counters["outcome"],
        /// Bytes of the messages that were redirected.
        Stable shortcut_bytes: Counter,
        /// Sockets that became ends of the shortcut or ended as such, and those that stayed on TCP, by reason.
        Unstable shortcut_sockets: Counters["outcome"],
        /// What applications did to their sockets that makes these leave the shortcut.
        Unstable shortcut_hazards: Counter,
        /// 1 where the kernel passed this check of the self-test, and 0 where it failed. The second label says what depends on
        /// it.
        Unstable shortcut_check: Gauges["check", "proves"],
        /// 1 while the API server answers the watch of this node's pods.
        Stable watch_connected: Gauge,
        /// Failures of that watch, each tried again.
        Stable watch_errors: Counter,
        /// Kubernetes Events, by outcome: sent, failed, or dropped by the rate limit.
        Stable events: Counters["outcome"],
        /// Network namespaces in which the programs saw a process, by how they saw it.
        Unstable sightings: Counters["seen"],
        /// Such namespaces that were too many to be looked at one by one. The agent then looks at every pod that waits.
        Unstable sightings_lost: Counter,
        /// 1 while the programs' sightings are received. Otherwise the agent looks for waiting pods every few seconds.
        Unstable sightings_connected: Gauge,
        /// Time that a program which all pods share has run since the agent loaded it. Linux counts it while
        /// kernel.bpf_stats_enabled is 1.
        Unstable program_run_seconds: SecondCounters["program"],
        /// How often such a program ran.
        Unstable program_runs: Counters["program"],
    }
}

impl Metrics {
    /// A pod is armed; `reaction` is the time since the kernel told of it.
    pub fn armed(&self, programming: Duration, reaction: Option<Duration>) {
        self.programming_duration_seconds
            .observe(programming.as_secs_f64());
        if let Some(reaction) = reaction {
            self.reaction_duration_seconds
                .observe(reaction.as_secs_f64());
        }
    }

    /// A pod could not be armed.
    pub fn failed(&self, reason: &'static str) {
        self.arming_failures.with([reason]).inc();
    }

    /// A pod is left to Istio.
    pub fn left(&self, reason: &'static str) {
        self.pods_left.with([reason]).inc();
    }

    /// So many raw TCP sockets were refused.
    pub fn raw_refused(&self, count: u64) {
        self.raw_sockets_refused.inc_by(count);
    }

    /// So many connections were refused because a pod, or the node, has too many open.
    pub fn refused(&self, count: u64) {
        self.connections_refused.inc_by(count);
    }

    /// A namespace was let go.
    pub fn released(&self) {
        self.released.inc();
    }

    /// A program told of a namespace.
    pub fn sighted(&self, seen: u32) {
        if let Some(seen) = Seen::from_number(seen) {
            self.sightings.with([seen.name()]).inc();
        }
    }

    /// So many of what programs told were dropped.
    pub fn sightings_lost(&self, count: u64) {
        self.sightings_lost.inc_by(count);
    }

    /// Whether what programs tell is received.
    pub fn hears(&self, does: bool) {
        self.sightings_connected.set(i64::from(does));
    }

    /// Links or pins were restored.
    pub fn restored(&self, count: usize) {
        self.restored
            .inc_by(u64::try_from(count).unwrap_or(u64::MAX));
    }

    /// The programs were tried just now; whether they act.
    pub fn tried(&self, act: bool) {
        if act {
            self.last_proof_timestamp_seconds
                .set(seconds(SystemTime::now()));
        }
        // Both are there from the first on, so that a rate has something to begin with.
        for (outcome, is_it) in [("passed", act), ("failed", !act)] {
            self.proofs.with([outcome]).inc_by(is_it.into());
        }
    }

    /// What became of an Event: `sent`, `failed` or `dropped`.
    pub fn event(&self, outcome: &'static str) {
        self.events.with([outcome]).inc();
    }

    /// The API server answered the watch of this node's pods.
    pub fn watch_answers(&self) {
        self.watch_connected.set(1);
    }

    /// That watch failed.
    pub fn watch_failed(&self) {
        self.watch_connected.set(0);
        self.watch_errors.inc();
    }

    /// All of them in the OpenMetrics text format, with what is read when somebody asks.
    pub fn text(&self, readiness: &Readiness, now: &Snapshot) -> Result<String, fmt::Error> {
        self.table.text(|| {
            let [abi, shortcut] = [ABI_VERSION, SHORTCUT_ABI_VERSION].map(|v| v.to_string());
            let version = env!("CARGO_PKG_VERSION");
            self.build_info.with([version, &abi, &shortcut]).set(1);
            for (condition, met) in readiness.conditions() {
                self.ready.with([condition]).set(met.into());
            }
            self.show_pods(now);
            for (row, count) in Row::ALL.iter().zip(now.decisions) {
                let verdict = verdict(row.verdict());
                self.decisions.show([row.name(), verdict], count);
            }
            for of in &now.maps {
                self.map_entries.with([of.map]).set(whole(of.entries));
                self.map_capacity.with([of.map]).set(whole(of.capacity));
            }
            self.show_shortcut(&now.shortcut);
            for of in &now.programs {
                self.program_run_seconds.show([&of.program], of.time);
                self.program_runs.show([&of.program], of.runs);
            }
        })
    }

    fn show_pods(&self, now: &Snapshot) {
        // Of reasons, some are no more.
        self.pods.clear();
        for state in PodState::ALL {
            self.pods.with([state.name(), ""]).set(0);
        }
        for (state, reason) in &now.pods {
            self.pods.with([state.name(), reason]).inc();
        }
        self.lingering_namespaces.set(whole(now.lingering));
        self.layout_namespaces.clear();
        for (layout, count) in &now.layouts {
            self.layout_namespaces.with([layout]).set(whole(*count));
        }
    }
}

/// As a gauge's value.
fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Where a row sends a connection, as a label's value. Stable.
const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Inbound => "inbound",
        Verdict::Outbound => "outbound",
        Verdict::Dns => "dns",
        Verdict::Refuse => "refuse",
    }
}
