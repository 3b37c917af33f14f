//! What the webhook counts. The list below is the only one: the exposition and the reference (`manifests/METRICS.md`) are made
//! of it.

use std::fmt;
use std::time::{Duration, SystemTime};

use sidestep_contract::gate::LANGUAGE;
use sidestep_runtime::Readiness;
use sidestep_runtime::metrics::{Gauge, seconds};

use crate::cluster::Share;

sidestep_runtime::metrics! {
    /// The webhook's metrics.
    pub struct Metrics = "sidestep_webhook" {
        /// Always 1: the webhook's version, and the version of the gates that it makes, which agents must be able to read.
        Stable build_info: Gauges["version", "gates"],
        /// 1 while this condition of readiness is met, and otherwise 0. The replica is ready while all are met.
        Stable ready: Gauges["condition"],
        /// Reviews answered, by path and decision: accelerated, or the reason why not.
        Stable reviews: Counters["path", "decision"],
        /// From a review's arrival to its answer.
        Stable review_duration_seconds: Histogram,
        /// When the replica last answered a review; 0 while it has answered none.
        Stable last_review_timestamp_seconds: Moment,
        /// Open connections for reviews.
        Stable connections: Gauge,
        /// When the certificate that is served expires; 0 while there is none.
        Stable certificate_expiry_timestamp_seconds: Moment,
        /// 1 on the replica that leads, 0 on the others.
        Stable leader: Gauge,
        /// Nodes that should have a ready agent, as far as the replica knows.
        Stable nodes: Gauge,
        /// Those of them that have one, or had one in the last two minutes.
        Stable nodes_ready: Gauge,
        /// Failures of the replica's watches of the API server, by what is watched. Each is tried again.
        Stable watch_errors: Counters["watch"],
        /// Pods that have long waited at their gates on nodes without a ready agent; set on the leader only.
        Stable waiting_pods: Gauge,
        /// Pods that the leader deleted because they waited too long.
        Stable waiting_pods_deleted: Counter,
    }
}

impl Metrics {
    /// Counts an answered review.
    pub fn answered(&self, path: &'static str, decision: &'static str, took: Duration) {
        self.reviews.with([path, decision]).inc();
        self.review_duration_seconds.observe(took.as_secs_f64());
        self.last_review_timestamp_seconds
            .set(seconds(SystemTime::now()));
    }

    /// Counts an open connection until the returned value is dropped.
    pub fn connection(&self) -> Open {
        self.connections.inc();
        Open(self.connections.clone())
    }

    /// Sets when the certificate that is served expires.
    pub fn certificate_until(&self, not_after: SystemTime) {
        self.certificate_expiry_timestamp_seconds
            .set(seconds(not_after));
    }

    /// Sets whether this replica leads. A replica that does not lead counts no waiting pods.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        if !leads {
            self.waiting_pods.set(0);
        }
    }

    /// Sets how many pods have long waited.
    pub fn waiting(&self, pods: usize) {
        self.waiting_pods.set(whole(pods));
    }

    /// Counts a deleted pod.
    pub fn deleted(&self) {
        self.waiting_pods_deleted.inc();
    }

    /// Counts a watch that failed.
    pub fn watch_failed(&self, watch: &'static str) {
        self.watch_errors.with([watch]).inc();
    }

    /// All of them in the OpenMetrics text format, with what is read when somebody asks.
    pub fn text(&self, readiness: &Readiness, agents: Option<Share>) -> Result<String, fmt::Error> {
        self.table.text(|| {
            let gates = LANGUAGE.to_string();
            self.build_info
                .with([env!("CARGO_PKG_VERSION"), &gates])
                .set(1);
            for (condition, met) in readiness.conditions() {
                self.ready.with([condition]).set(met.into());
            }
            let (ready, of) = agents.map_or((0, 0), |share| (share.ready, share.of));
            self.nodes.set(whole(of));
            self.nodes_ready.set(whole(ready));
        })
    }
}

/// As a gauge's value.
fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A connection that is counted.
#[derive(Debug)]
pub struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
