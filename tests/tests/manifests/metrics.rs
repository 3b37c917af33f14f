//! The metrics: their reference, and what Prometheus' own linter says of them.

use std::{fmt::Write as _, fs};

use sidestep_agent::metrics::Snapshot;
use sidestep_kit::{needs, parts, prometheus::complaints};
use sidestep_runtime::{
    Readiness,
    metrics::{Row, classic},
};

const HEAD: &str = "\
# Metrics

The agent serves its metrics on port 8081 of each node's agent pod, the webhook on port 8080 of each replica, both at `/metrics`: in
the OpenMetrics format to whoever asks for it, as Prometheus does, and else in Prometheus' older text format.
[README.md](README.md#monitoring) says how they are scraped, [RUNBOOKS.md](RUNBOOKS.md) what to do when an alert fires.

A **stable** metric keeps its name, type, labels and the meaning of their values until the next major version (before 1.0, the next minor one). An **unstable** one shows
how something is built, and may change with that in any release. Buckets of histograms are unstable.

This file is made from the code: `UPDATE_EXPECTED=1 cargo test -p sidestep-tests --test manifests` writes it.
";

fn section(text: &mut String, title: &str, rows: &[Row]) {
    write!(
        text,
        "\n## {title}\n\n| metric | type | labels | | meaning |\n|---|---|---|---|---|\n"
    )
    .expect("a string takes it");
    for row in rows {
        let labels: Vec<_> = row.labels.iter().map(|name| format!("`{name}`")).collect();
        writeln!(
            text,
            "| `{}` | {} | {} | {} | {} |",
            row.name,
            row.kind,
            labels.join(", "),
            row.stability.name(),
            row.help
        )
        .expect("a string takes it");
    }
}

#[test]
fn the_reference_is_what_the_programs_declare() {
    let mut now = HEAD.to_owned();
    let agent = sidestep_agent::metrics::Metrics::default();
    let webhook = sidestep_webhook::metrics::Metrics::default();
    section(&mut now, "Agent", agent.table().rows());
    section(&mut now, "Webhook", webhook.table().rows());
    let path = parts::workspace().join("manifests/METRICS.md");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(&path, &now).expect("a file can be written");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(now, kept, "UPDATE_EXPECTED=1 writes {}", path.display());
}

#[needs(part("promtool"))]
fn promtool_has_nothing_to_say_against_any_metric() {
    let readiness = Readiness::default();
    readiness.condition("programs", "not attached yet").met();
    let agent = sidestep_agent::metrics::Metrics::default();
    let webhook = sidestep_webhook::metrics::Metrics::default();
    for text in [
        agent.text(&readiness, &Snapshot::default()),
        webhook.text(&readiness, None),
    ] {
        let text = classic(&text.expect("text"));
        assert_eq!(complaints(&text), "", "{text}");
    }
    // It does say something where there is something to say.
    assert!(complaints("# TYPE apples counter\napples 1\n").contains("_total"));
}
