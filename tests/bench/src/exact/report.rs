//! What was counted, for people and for programs.

use std::{collections::BTreeSet, fmt, path::Path};

use serde::Serialize;

use super::{Case, Measured, Setting, each};
use crate::plot::{Bars, draw_all};

/// What was counted on each kernel.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// By kernel.
    pub kernels: Vec<(String, Vec<Measured>)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kernel, measured) in &self.kernels {
            let table = Table { measured };
            writeln!(
                f,
                "\nLinux {kernel}, thousands of instructions a request; ratios to iptables: of the kernel's part, of all\n"
            )?;
            writeln!(
                f,
                "{:48}{:>10}{:>10}{:>8}{:>8}",
                "", "programs", "kernel", "kernel", "all"
            )?;
            table.instructions(f)?;
            writeln!(
                f,
                "\nOur programs: runs a request · instructions a run, those of reading the clock included; and all of them a request\n"
            )?;
            table.hooks(f)?;
        }
        Ok(())
    }
}

impl Report {
    /// Draws the kernel's part of a request as a part of that with iptables, a picture for each kernel, into an SVG file.
    pub fn draw(&self, file: &Path) -> anyhow::Result<()> {
        let pictures = self.kernels.iter().map(|(kernel, measured)| {
            let table = Table { measured };
            let cases = table.cases();
            let settings: BTreeSet<Setting> = measured.iter().map(|one| one.sample.setting).collect();
            let part = |setting, case| {
                let own = table.find(setting, case)?;
                Some(own.kernel() / table.find(Setting::Iptables, case)?.kernel())
            };
            Bars {
                title: format!("Linux {kernel}: instructions of the kernel a request, iptables = 1 (less is better)"),
                groups: cases.iter().map(|case| case.name()).collect(),
                settings: settings
                    .into_iter()
                    .map(|setting| {
                        let parts = cases.iter().map(|case| part(setting, *case).unwrap_or_default());
                        (setting, parts.collect())
                    })
                    .collect(),
            }
        });
        draw_all(&pictures.collect::<Vec<_>>(), file)
    }
}

/// Of one kernel.
struct Table<'a> {
    measured: &'a [Measured],
}

impl Table<'_> {
    fn instructions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = None;
        for one in self.measured_by_case() {
            let case = one.sample.case;
            let name = if last.replace(case) == Some(case) {
                ""
            } else {
                case.name()
            };
            let [programs, kernel] = [one.programs(), one.kernel()];
            write!(
                f,
                "{name:<24}{:<24}{:>10.1}{:>10.1}",
                one.sample.setting,
                programs / 1e3,
                kernel / 1e3
            )?;
            if let Some(base) = self.find(Setting::Iptables, case) {
                let all = (programs + kernel) / (base.programs() + base.kernel());
                write!(f, "{:>8.3}{all:>8.3}", kernel / base.kernel())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn hooks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in self.measured_by_case() {
            let sample = &one.sample;
            if sample.hooks.is_empty() {
                continue;
            }
            let mut sum = 0.0;
            write!(f, "{:<24}{:<16}", sample.case, sample.setting)?;
            for (name, hook) in &sample.hooks {
                let runs = each(hook.runs, sample.requests_counted);
                let cost = each(hook.instructions, hook.runs);
                sum += runs * cost;
                // What a connection costs is not seen where there is one for all requests.
                if runs >= 0.05 {
                    write!(f, " {name} {runs:.1}·{cost:.0}")?;
                }
            }
            writeln!(f, "  = {sum:.0}")?;
        }
        Ok(())
    }

    fn cases(&self) -> BTreeSet<Case> {
        self.measured.iter().map(|one| one.sample.case).collect()
    }

    fn measured_by_case(&self) -> impl Iterator<Item = &Measured> {
        self.cases().into_iter().flat_map(|case| {
            self.measured
                .iter()
                .filter(move |one| one.sample.case == case)
        })
    }

    fn find(&self, setting: Setting, case: Case) -> Option<&Measured> {
        let mut all = self.measured.iter();
        all.find(|one| one.sample.setting == setting && one.sample.case == case)
    }
}
