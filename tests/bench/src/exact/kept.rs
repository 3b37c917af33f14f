//! What was counted once and is kept in a file, so that a change that costs more, or less, is seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::{Case, Measured, Report, Setting, each};

/// The most by which the kernel's part of a request may differ from what was kept, either way, as a share of that.
const PART: f64 = 0.03;
/// The same for a run of one of our programs.
const RUN: f64 = 0.10;
/// Programs that run less often a request are not looked at: where a connection serves thousands of requests.
const OFTEN: f64 = 0.5;

/// One setting under one kind of traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Line {
    kernel: String,
    setting: Setting,
    case: Case,
    /// Instructions of the kernel a request.
    instructions: f64,
    /// Instructions of a run of each program, those of reading the clock included.
    programs: BTreeMap<String, f64>,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept(Vec<Line>);

impl Kept {
    /// What is worth keeping of a report.
    pub fn of(report: &Report) -> Self {
        let lines = report.kernels.iter().flat_map(|(kernel, measured)| {
            measured.iter().map(|one| Line::of(kernel.clone(), one))
        });
        Self(lines.collect())
    }

    /// Reads a file.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        serde_json::from_str(&text).with_context(|| file.display().to_string())
    }

    /// Writes one.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = format!("{}\n", serde_json::to_string_pretty(self)?);
        fs::write(file, text).with_context(|| file.display().to_string())
    }

    /// Fails where a report differs from this, and says in what.
    pub fn compare(&self, report: &Report) -> anyhow::Result<()> {
        let differences = self.differences(&Self::of(report));
        if differences.is_empty() {
            return Ok(());
        }
        bail!(
            "not what is kept; where that is meant, keep it by `make exact-keep`:\n  {}",
            differences.join("\n  ")
        )
    }

    fn differences(&self, new: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for line in &new.0 {
            let what = format!("Linux {}, {}, {}", line.kernel, line.setting, line.case);
            let same = |old: &&Line| {
                (&old.kernel, old.setting, old.case) == (&line.kernel, line.setting, line.case)
            };
            let Some(old) = self.0.iter().find(same) else {
                differences.push(format!("{what}: nothing is kept"));
                continue;
            };
            if differs(old.instructions, line.instructions, PART) {
                differences.push(format!(
                    "{what}: {:.0} instructions of the kernel a request, {:.0} are kept (more than {:.0} % apart)",
                    line.instructions,
                    old.instructions,
                    PART * 100.0
                ));
            }
            let names = old.programs.keys().chain(line.programs.keys());
            for name in names.collect::<BTreeSet<_>>() {
                let cost = |line: &Line| line.programs.get(name).copied().unwrap_or_default();
                if differs(cost(old), cost(line), RUN) {
                    differences.push(format!(
                        "{what}: {name} takes {:.0} instructions a run, {:.0} are kept (more than {:.0} % apart)",
                        cost(line),
                        cost(old),
                        RUN * 100.0
                    ));
                }
            }
        }
        differences
    }
}

fn differs(old: f64, new: f64, share: f64) -> bool {
    (new - old).abs() > share * old
}

impl Line {
    fn of(kernel: String, one: &Measured) -> Self {
        let sample = &one.sample;
        let often = sample
            .hooks
            .iter()
            .filter(|(_, hook)| each(hook.runs, sample.requests_counted) >= OFTEN);
        Self {
            kernel,
            setting: sample.setting,
            case: sample.case,
            instructions: one.kernel().round(),
            programs: often
                .map(|(name, hook)| (name.clone(), each(hook.instructions, hook.runs).round()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(instructions: f64, connect: f64) -> Kept {
        Kept(vec![Line {
            kernel: "6.12".to_owned(),
            setting: Setting::Off,
            case: Case::One,
            instructions,
            programs: BTreeMap::from([("on_connect4".to_owned(), connect)]),
        }])
    }

    #[test]
    fn small_differences_are_none() {
        let old = kept(100_000.0, 1000.0);
        assert_eq!(old.differences(&kept(102_900.0, 1099.0)), [""; 0]);
        assert_eq!(old.differences(&kept(97_100.0, 901.0)), [""; 0]);
    }

    #[test]
    fn more_and_less_are_named() {
        let old = kept(100_000.0, 1000.0);
        let dearer = old.differences(&kept(103_100.0, 1000.0));
        assert_eq!(dearer.len(), 1);
        assert!(
            dearer[0].contains("103100 instructions of the kernel"),
            "{dearer:?}"
        );
        let cheaper = old.differences(&kept(100_000.0, 880.0));
        assert_eq!(cheaper.len(), 1);
        assert!(cheaper[0].contains("on_connect4 takes 880"), "{cheaper:?}");
    }

    #[test]
    fn a_program_that_came_or_went_is_named() {
        let old = kept(1.0, 1000.0);
        let mut new = old.clone();
        new.0[0].programs.clear();
        assert_eq!(old.differences(&new).len(), 1);
        assert_eq!(new.differences(&old).len(), 1);
        assert_eq!(Kept(Vec::new()).differences(&old).len(), 1);
    }
}
