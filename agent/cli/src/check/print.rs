//! What is printed of findings.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::finding::{Finding, Level};
use crate::level::Symbols;

/// The file that says of each check what it means.
const DOCS: &str = "agent/cli/README.md";

/// For people. Colours are taken out where the output is no terminal.
pub(super) fn text(findings: &[Finding], symbols: Symbols) -> String {
    let mut out = String::new();
    let mut group = "";
    for Finding { check, verdict } in findings {
        if check.group() != group {
            let between = if group.is_empty() { "" } else { "\n" };
            group = check.group();
            let _infallible = writeln!(out, "{between}{group}");
        }
        let (style, symbol) = (verdict.level.style(), symbols.of(verdict.level));
        let name = check.name();
        let _infallible = writeln!(out, "{style}{symbol}{style:#} {name}: {}", verdict.said);
        if let Some(hint) = &verdict.hint {
            let _infallible = writeln!(out, "    {hint}\n    see {}", docs(name));
        }
    }
    let _infallible = writeln!(out, "\n{}", summary(findings));
    out
}

/// For programs.
pub(super) fn json(findings: &[Finding]) -> Value {
    let checks = findings.iter().map(|Finding { check, verdict }| {
        json!({
            "group": check.group(), "check": check, "level": verdict.level, "message": verdict.said, "hint": verdict.hint,
            "docs": docs(check.name()),
        })
    });
    let checks: Vec<_> = checks.collect();
    json!({"checks": checks, "level": worst(findings)})
}

/// The worst level of all.
pub(super) fn worst(findings: &[Finding]) -> Level {
    let levels = findings.iter().map(|finding| finding.verdict.level);
    levels.max().unwrap_or(Level::Good)
}

fn docs(name: &str) -> String {
    format!("{DOCS}#{name}")
}

fn summary(findings: &[Finding]) -> String {
    let count = |level| {
        let all = findings.iter();
        all.filter(|finding| finding.verdict.level == level).count()
    };
    match (count(Level::Failure), count(Level::Warning)) {
        (0, 0) => "all is well".to_owned(),
        (0, warnings) => format!("no check failed; warnings: {warnings}"),
        (failed, warnings) => format!("failed checks: {failed}; warnings: {warnings}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::{Check, Verdict};

    fn found() -> Vec<Finding> {
        let one = |check, verdict| Finding { check, verdict };
        vec![
            one(Check::ApiServer, Verdict::good("Kubernetes 1.34")),
            one(Check::Nodes, Verdict::warning("one is old", "replace it")),
            one(Check::Webhook, Verdict::failure("it is down", "start it")),
        ]
    }

    #[test]
    fn a_line_for_each_check_and_a_hint_for_what_is_not_good() {
        let text = anstream::adapter::strip_str(&text(&found(), Symbols::Unicode)).to_string();
        let wanted = "\
API server
✓ api-server: Kubernetes 1.34

Nodes
‼ nodes: one is old
    replace it
    see agent/cli/README.md#nodes

Sidestep
✗ webhook: it is down
    start it
    see agent/cli/README.md#webhook

failed checks: 1; warnings: 1
";
        assert_eq!(text, wanted);
    }

    #[test]
    fn in_ascii_nothing_else_is_printed() {
        let text = text(&found(), Symbols::Ascii);
        assert!(text.is_ascii(), "{text}");
    }

    #[test]
    fn programs_read_the_same() {
        let json = json(&found());
        assert_eq!(json["level"], "failure");
        assert_eq!(json["checks"][1]["level"], "warning");
        assert_eq!(json["checks"][1]["hint"], "replace it");
        assert_eq!(json["checks"][0]["check"], "api-server");
    }
}
