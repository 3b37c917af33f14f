//! The server's metrics. Names and labels are stable; buckets are not.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The server's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reviews: Family<Review, Counter<u64, AtomicU64>>,
    seconds: Histogram,
    connections: Gauge,
    certificate: Gauge<f64, AtomicU64>,
    leads: Gauge,
    waiting: Gauge,
    deleted: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Review {
    path: &'static str,
    decision: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("sidestep_webhook");
        let reviews = Family::default();
        registry.register(
            "reviews",
            "Reviews answered, by path and decision: accelerated, or the reason why not",
            reviews.clone(),
        );
        let seconds = Histogram::new([0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0]);
        registry.register(
            "review_duration_seconds",
            "From a review's last byte to its answer",
            seconds.clone(),
        );
        let connections = Gauge::default();
        registry.register("connections", "Open connections", connections.clone());
        let certificate = Gauge::default();
        registry.register(
            "certificate_expiry_timestamp_seconds",
            "When the certificate that is served expires, since 1970; 0 while there is none",
            certificate.clone(),
        );
        let leads = Gauge::default();
        registry.register(
            "leader",
            "Whether this replica leads: 1 on one of them, 0 on the others",
            leads.clone(),
        );
        let waiting = Gauge::default();
        registry.register(
            "waiting_pods",
            "Pods that have long waited at their gates on nodes without a ready agent; set on the leader only",
            waiting.clone(),
        );
        let deleted = Counter::default();
        registry.register(
            "waiting_pods_deleted",
            "Pods deleted because they waited too long",
            deleted.clone(),
        );
        Self {
            registry,
            reviews,
            seconds,
            connections,
            certificate,
            leads,
            waiting,
            deleted,
        }
    }
}

impl Metrics {
    /// Counts an answered review.
    pub fn answered(&self, path: &'static str, decision: &'static str, took: Duration) {
        self.reviews.get_or_create(&Review { path, decision }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts an open connection until the returned value is dropped.
    pub fn connection(&self) -> Open {
        self.connections.inc();
        Open(self.connections.clone())
    }

    /// Sets when the certificate that is served expires.
    pub fn certificate_until(&self, not_after: SystemTime) {
        let since = not_after.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.certificate.set(since.as_secs_f64());
    }

    /// Sets whether this replica leads. A replica that does not lead counts no waiting pods.
    pub fn leads(&self, leads: bool) {
        self.leads.set(i64::from(leads));
        if !leads {
            self.waiting.set(0);
        }
    }

    /// Sets how many pods have long waited.
    pub fn waiting(&self, pods: usize) {
        self.waiting.set(i64::try_from(pods).unwrap_or(i64::MAX));
    }

    /// Counts a deleted pod.
    pub fn deleted(&self) {
        self.deleted.inc();
    }

    /// All metrics in the OpenMetrics text format.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
