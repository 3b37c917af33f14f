//! Metrics, each declared once. The macro [`metrics!`](crate::metrics!) turns one list into the fields by which a program
//! counts, the text that Prometheus scrapes ([`Table::text`]), and the rows of the reference ([`Table::rows`]).

mod classic;
mod instrument;

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use prometheus_client::{encoding::text, registry::Registry};

pub use self::{
    classic::{CLASSIC, classic},
    instrument::{
        Counter, Counters, Gauge, Gauges, Histogram, Instrument, Moment, SecondCounters, seconds,
        show,
    },
};

/// Whether a metric keeps its name, type, labels and the meaning of its label values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    /// Until the next major version; before 1.0, the next minor one.
    Stable,
    /// Until the next release at least; it shows how something is built, and goes with that.
    Unstable,
}

impl Stability {
    /// The word in the reference.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Unstable => "unstable",
        }
    }
}

/// One metric, as the reference has it.
#[derive(Clone, Debug)]
pub struct Row {
    /// As Prometheus stores it; of a histogram without `_bucket`, `_sum` and `_count`.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// What it says.
    pub help: String,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// How long that holds.
    pub stability: Stability,
}

/// A program's metrics.
#[derive(Debug)]
pub struct Table {
    prefix: &'static str,
    registry: Registry,
    rows: Vec<Row>,
    /// Held while values are set that belong together, and while they are read.
    scrape: Mutex<()>,
}

impl Table {
    /// An empty table. Every name in it begins with the prefix and an underscore.
    pub fn new(prefix: &'static str) -> Self {
        Self {
            prefix,
            registry: Registry::with_prefix(prefix),
            rows: Vec::new(),
            scrape: Mutex::new(()),
        }
    }

    /// Adds a metric. Its help is given as the lines of a doc comment.
    pub fn add<I: Instrument>(
        &mut self,
        name: &'static str,
        help: &[&str],
        labels: &'static [&'static str],
        stability: Stability,
    ) -> I {
        let instrument = I::new(labels);
        let words: Vec<_> = help
            .iter()
            .flat_map(|line| line.split_whitespace())
            .collect();
        let help = words.join(" ");
        let help = help.trim_end_matches('.').to_owned();
        self.registry
            .register(name, help.clone(), instrument.metric());
        self.rows.push(Row {
            name: format!("{}_{name}{}", self.prefix, I::SUFFIX),
            kind: I::KIND,
            help,
            labels,
            stability,
        });
        instrument
    }

    /// Every metric, in the order of the list.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// All of them in the OpenMetrics text format, after `refresh` has set those that are read only when somebody scrapes.
    pub fn text(&self, refresh: impl FnOnce()) -> Result<String, fmt::Error> {
        // Two scrapes at a time would see each other's half-set values. A panic leaves nothing half done that stays so.
        let _alone = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        refresh();
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// Declares a program's metrics: a struct with a field for each, `Default`, and the method `table`.
///
/// The field's name is the metric's, without the prefix and a counter's `_total`. Its doc comment is the help. Labels are in
/// brackets behind the type, one of [`Counter`], [`Gauge`], [`Moment`] and [`Histogram`], or with labels [`Counters`],
/// [`Gauges`] and [`SecondCounters`].
///
/// ```
/// sidestep_runtime::metrics! {
///     /// What a shop counts.
///     pub struct Metrics = "shop" {
///         /// Apples that were sold, by colour.
///         Stable apples: Counters["colour"],
///         /// Apples in the basket.
///         Unstable basket: Gauge,
///     }
/// }
/// let metrics = Metrics::default();
/// metrics.apples.with(["red"]).inc();
/// metrics.basket.set(7);
/// let text = metrics.table().text(|| {}).unwrap();
/// assert!(text.contains("shop_apples_total{colour=\"red\"} 1\n"));
/// assert_eq!(metrics.table().rows()[1].name, "shop_basket");
/// ```
#[macro_export]
macro_rules! metrics {
    ($(#[$about:meta])* $vis:vis struct $name:ident = $prefix:literal {
        $($(#[doc = $help:literal])+ $stability:ident $field:ident: $kind:ident $([$($label:literal),+])?,)+
    }) => {
        $(#[$about])*
        #[derive(Clone, Debug)]
        $vis struct $name {
            table: ::std::sync::Arc<$crate::metrics::Table>,
            $($(#[doc = $help])+ $field: $crate::metrics::$kind $(<{ [$($label),+].len() }>)?,)+
        }

        impl Default for $name {
            fn default() -> Self {
                let mut table = $crate::metrics::Table::new($prefix);
                $(let $field = table.add(
                    stringify!($field),
                    &[$($help),+],
                    &[$($($label),+)?],
                    $crate::metrics::Stability::$stability,
                );)+
                Self { table: ::std::sync::Arc::new(table), $($field,)+ }
            }
        }

        impl $name {
            /// What the metrics are called, and their text.
            $vis fn table(&self) -> &$crate::metrics::Table {
                &self.table
            }
        }
    };
}

#[cfg(test)]
mod tests {
    crate::metrics! {
        /// Of a test.
        struct Metrics = "test" {
            /// One line,
            /// and another.
            Stable plain: Counter,
            /// With labels.
            Unstable both: Gauges["a", "b"],
            /// A time.
            Stable took_seconds: Histogram,
            /// Nothing yet.
            Stable none: Counters["why"],
        }
    }

    fn filled() -> Metrics {
        let metrics = Metrics::default();
        metrics.plain.inc();
        metrics.both.with(["1", "a \"word\""]).set(-2);
        metrics.took_seconds.observe(0.02);
        metrics
    }

    #[test]
    fn the_text_is_what_was_declared_and_counted() {
        let metrics = filled();
        let text = metrics.table().text(|| {
            metrics.none.with(["now"]).inc();
        });
        let text = text.expect("text");
        for line in [
            "# HELP test_plain One line, and another.",
            "# TYPE test_plain counter",
            "test_plain_total 1",
            "test_both{a=\"1\",b=\"a \\\"word\\\"\"} -2",
            "test_took_seconds_bucket{le=\"0.025\"} 1",
            "test_none_total{why=\"now\"} 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_rows_are_what_was_declared() {
        let metrics = Metrics::default();
        let rows: Vec<_> = metrics
            .table()
            .rows()
            .iter()
            .map(|row| {
                format!(
                    "{} {} {:?} {}",
                    row.name,
                    row.kind,
                    row.labels,
                    row.stability.name()
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                "test_plain_total counter [] stable",
                "test_both gauge [\"a\", \"b\"] unstable",
                "test_took_seconds histogram [] stable",
                "test_none_total counter [\"why\"] stable",
            ]
        );
    }

    #[test]
    fn what_is_cleared_is_not_told() {
        let metrics = filled();
        metrics.both.clear();
        let text = metrics.table().text(|| {}).expect("text");
        assert!(!text.contains("test_both{"), "{text}");
    }
}
