//! What is printed of a report.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::plan::Path;
use super::report::{Failure, Outcome, Report, Row};
use crate::level::{Level, Symbols};
use crate::table::table;

/// The section that says of each case what it is.
const DOCS: &str = "agent/cli/README.md#connectivity-test";

/// For people.
pub(super) fn text(report: &Report, symbols: Symbols) -> String {
    let far = report.far.as_ref().map_or("none", String::as_str);
    let mut out = format!(
        "nodes: {} and {far}; namespace: {}\n\n",
        report.near, report.namespace
    );
    out.push_str(&table(
        ["CASE", "PATH", "SIDESTEP", "ISTIO"],
        rows(report, symbols),
    ));
    let mut has_failures = false;
    for row in report.rows.iter().filter(|row| row.level() != Level::Good) {
        failures(&mut out, row, symbols);
        if let Some(hint) = hint(row) {
            let _infallible = writeln!(out, "    {}{hint}", again(report));
        }
        has_failures = true;
    }
    if has_failures {
        let _infallible = writeln!(out, "\nsee {DOCS}");
    }
    if let Err(why) = &report.far {
        let _infallible = writeln!(out, "\nno second node: {why}");
    }
    let _infallible = writeln!(out, "\n{}", summary(report));
    out
}

fn rows(report: &Report, symbols: Symbols) -> Vec<[String; 4]> {
    let cell = |row: &Row, outcome: &Outcome| {
        // Where both fail, neither of them is the cause.
        let level = match outcome {
            Ok(_) => Level::Good,
            Err(_) => row.level(),
        };
        let symbol = symbols.of(level).trim_end();
        match outcome {
            Ok(Some(us)) => format!("{symbol} {}", milliseconds(*us)),
            Ok(None) | Err(_) => symbol.to_owned(),
        }
    };
    let mut rows: Vec<_> = report
        .rows
        .iter()
        .map(|row| {
            let istio = row.istio.as_ref();
            [
                row.case.to_owned(),
                row.path
                    .map_or(String::new(), |path| path.words().to_owned()),
                cell(row, &row.sidestep),
                istio.map_or(String::new(), |istio| cell(row, istio)),
            ]
        })
        .collect();
    if report.far.is_err() {
        let half = ["every one", Path::TwoNodes.words(), "no second node", ""];
        rows.push(half.map(ToOwned::to_owned));
    }
    rows
}

/// What was seen where a case did not pass, and what to do.
fn failures(out: &mut String, row: &Row, symbols: Symbols) {
    let level = row.level();
    let (style, symbol) = (level.style(), symbols.of(level));
    let path = row.path.map(|path| format!(", {}", path.words()));
    let path = path.unwrap_or_default();
    let said = match (&row.sidestep, &row.istio) {
        (Err(ours), Some(Err(theirs))) => format!(
            "{}; not Sidestep's: it fails with Istio's own redirection, too ({})",
            ours.said, theirs.said
        ),
        (Ok(_), Some(Err(theirs))) => format!(
            "passes with Sidestep, fails with Istio's own redirection: {}",
            theirs.said
        ),
        (Err(ours), _) => ours.said.clone(),
        (Ok(_), _) => return,
    };
    let _infallible = writeln!(out, "\n{style}{symbol}{style:#} {}{path}: {said}", row.case);
}

/// Where nothing is left to look at.
const fn again(report: &Report) -> &'static str {
    if report.is_kept {
        ""
    } else {
        "again with --keep, by the names and addresses of then: "
    }
}

fn hint(row: &Row) -> Option<&str> {
    let failure = row.sidestep.as_ref().err();
    let failure = failure.or_else(|| row.istio.as_ref()?.as_ref().err());
    failure.map(|failure| failure.hint.as_str())
}

fn milliseconds(us: u64) -> String {
    match us {
        0..10_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        us => format!("{} ms", us / 1000),
    }
}

fn summary(report: &Report) -> String {
    let failed = report.count(Level::Failure);
    let elsewhere = report.count(Level::Warning);
    let passed = report.count(Level::Good);
    match (failed, elsewhere) {
        (0, 0) => format!("all {passed} cases pass with Sidestep as with Istio's own redirection"),
        (0, _) => {
            format!("cases that pass: {passed}; that fail, and not for Sidestep: {elsewhere}")
        }
        _ => format!(
            "cases that pass: {passed}; that fail with Sidestep: {failed}; that fail, and not for Sidestep: {elsewhere}"
        ),
    }
}

/// For programs.
pub(super) fn json(report: &Report) -> Value {
    let outcome = |outcome: &Outcome| match outcome {
        Ok(us) => json!({"passed": true, "us": us}),
        Err(Failure { said, hint }) => json!({"passed": false, "message": said, "hint": hint}),
    };
    let cases = report.rows.iter().map(|row| {
        json!({
            "case": row.case, "path": row.path, "level": row.level(),
            "sidestep": outcome(&row.sidestep), "istio": row.istio.as_ref().map(outcome),
        })
    });
    let cases: Vec<_> = cases.collect();
    json!({
        "level": report.level(), "namespace": report.namespace, "cases": cases,
        "nodes": {"near": report.near, "far": report.far.as_ref().ok()},
        "noSecondNode": report.far.as_ref().err(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(far: Result<&str, &str>) -> Report {
        let failed = |said: &str| {
            Err(Failure {
                said: said.to_owned(),
                hint: format!("about {said}"),
            })
        };
        let row = |case, path, sidestep, istio| Row {
            case,
            path,
            sidestep,
            istio,
        };
        let near = Some(Path::SameNode);
        Report {
            namespace: "test".to_owned(),
            near: "one".to_owned(),
            far: far.map(ToOwned::to_owned).map_err(ToOwned::to_owned),
            is_kept: far.is_ok(),
            rows: vec![
                row("http", near, Ok(Some(3210)), Some(Ok(Some(14_321)))),
                row("tcp", near, failed("lost"), Some(Ok(Some(950)))),
                row("grpc", near, failed("gone"), Some(failed("gone, too"))),
                row("dns", None, Ok(Some(40)), Some(Ok(Some(0)))),
                row("accelerated", None, Ok(None), None),
            ],
        }
    }

    #[test]
    fn a_line_for_each_case_and_a_sentence_for_what_failed() {
        let text = text(&report(Err("one is the only one")), Symbols::Unicode);
        let text = anstream::adapter::strip_str(&text).to_string();
        let wanted = "\
nodes: one and none; namespace: test

CASE          PATH        SIDESTEP         ISTIO
http          same node   ✓ 3.2 ms         ✓ 14 ms
tcp           same node   ✗                ✓ 0.9 ms
grpc          same node   ‼                ‼
dns           -           ✓ 0.0 ms         ✓ 0.0 ms
accelerated   -           ✓                -
every one     two nodes   no second node   -

✗ tcp, same node: lost
    again with --keep, by the names and addresses of then: about lost

‼ grpc, same node: gone; not Sidestep's: it fails with Istio's own redirection, too (gone, too)
    again with --keep, by the names and addresses of then: about gone

see agent/cli/README.md#connectivity-test

no second node: one is the only one

cases that pass: 3; that fail with Sidestep: 1; that fail, and not for Sidestep: 1
";
        assert_eq!(text, wanted);
    }

    #[test]
    fn in_ascii_nothing_else_is_printed_and_two_nodes_need_no_excuse() {
        let text = text(&report(Ok("two")), Symbols::Ascii);
        assert!(text.is_ascii(), "{text}");
        assert!(!text.contains("no second node"), "{text}");
        assert!(text.contains("[FAIL]"), "{text}");
        assert!(text.contains("\n    about lost\n"), "{text}");
    }

    #[test]
    fn programs_read_the_same() {
        let json = json(&report(Ok("two")));
        assert_eq!(json["level"], "failure");
        assert_eq!(json["nodes"], json!({"near": "one", "far": "two"}));
        assert_eq!(
            json["cases"][0]["sidestep"],
            json!({"passed": true, "us": 3210})
        );
        assert_eq!(json["cases"][0]["path"], "same-node");
        assert_eq!(json["cases"][1]["sidestep"]["hint"], "about lost");
        assert_eq!(json["cases"][2]["level"], "warning");
        assert_eq!(json["cases"][4]["istio"], Value::Null);
    }
}
