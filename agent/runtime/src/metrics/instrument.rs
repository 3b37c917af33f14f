//! What a program counts with.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    encoding::EncodeMetric,
    metrics::{self, family::Family},
    registry::Metric,
};

/// Only goes up.
pub type Counter = metrics::counter::Counter;
/// Goes up and down.
pub type Gauge = metrics::gauge::Gauge;
/// A point in time, as seconds since 1970; 0 is never.
pub type Moment = metrics::gauge::Gauge<f64, AtomicU64>;
/// How long something took. Bounds go from what a system call takes to what nobody should wait for.
pub type Histogram = metrics::histogram::Histogram;
/// Counters by their labels' values.
pub type Counters<const N: usize> = Labelled<Counter, N>;
/// Gauges by their labels' values.
pub type Gauges<const N: usize> = Labelled<Gauge, N>;
/// Counters of seconds, by their labels' values.
pub type SecondCounters<const N: usize> = Labelled<Seconds, N>;
/// Adds up time.
type Seconds = metrics::counter::Counter<f64, AtomicU64>;

/// Upper bounds of a histogram's buckets, seconds.
const SECONDS: [f64; 10] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0,
];

/// A kind of metric: how it is made, and what the reference calls it.
pub trait Instrument {
    /// Its type.
    const KIND: &'static str;
    /// What the exposition adds to its name.
    const SUFFIX: &'static str;

    /// One that has counted nothing.
    fn new(labels: &'static [&'static str]) -> Self;

    /// The same one, for the registry.
    fn metric(&self) -> impl Metric;
}

/// One metric for each combination of its labels' values.
#[derive(Clone, Debug)]
pub struct Labelled<M, const N: usize> {
    names: [&'static str; N],
    family: Family<[(&'static str, String); N], M>,
}

impl<M: Clone + Default, const N: usize> Labelled<M, N> {
    /// The metric with these values.
    pub fn with(&self, values: [&str; N]) -> M {
        let mut names = self.names.iter();
        let labels = values.map(|value| (*names.next().unwrap_or(&""), value.to_owned()));
        self.family.get_or_create_owned(&labels)
    }

    /// Forgets all combinations: of what is counted anew at each scrape, some may be no more.
    pub fn clear(&self) {
        self.family.clear();
    }
}

impl<const N: usize> Counters<N> {
    /// Shows a count that somebody else keeps, such as the kernel.
    pub fn show(&self, values: [&str; N], count: u64) {
        show(&self.with(values), count);
    }
}

impl<const N: usize> SecondCounters<N> {
    /// Shows a time that somebody else adds up.
    pub fn show(&self, values: [&str; N], time: Duration) {
        let bits = time.as_secs_f64().to_bits();
        self.with(values).inner().store(bits, Ordering::Relaxed);
    }
}

/// Shows a count that somebody else keeps.
pub fn show(counter: &Counter, count: u64) {
    counter.inner().store(count, Ordering::Relaxed);
}

/// A point in time, as a [`Moment`] has it.
pub fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs_f64()
}

/// Instruments without labels.
macro_rules! instruments {
    ($($name:ty: $kind:literal $suffix:literal, $new:expr;)+) => { $(
        impl Instrument for $name {
            const KIND: &'static str = $kind;
            const SUFFIX: &'static str = $suffix;

            fn new(_: &'static [&'static str]) -> Self {
                $new
            }

            fn metric(&self) -> impl Metric {
                self.clone()
            }
        }
    )+ };
}

instruments! {
    Counter: "counter" "_total", Self::default();
    Seconds: "counter" "_total", Self::default();
    Gauge: "gauge" "", Self::default();
    Moment: "gauge" "", Self::default();
    Histogram: "histogram" "", Self::new(SECONDS);
}

impl<M, const N: usize> Instrument for Labelled<M, N>
where
    M: Instrument + EncodeMetric + metrics::TypedMetric + Clone + Default + std::fmt::Debug,
    M: Send + Sync + 'static,
{
    const KIND: &'static str = M::KIND;
    const SUFFIX: &'static str = M::SUFFIX;

    fn new(labels: &'static [&'static str]) -> Self {
        Self {
            names: std::array::from_fn(|place| labels[place]),
            family: Family::default(),
        }
    }

    fn metric(&self) -> impl Metric {
        self.family.clone()
    }
}
