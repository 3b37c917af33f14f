//! What was measured, for people and for programs.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{Case, Plan, Setting, statistics::Spread};

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Round {
    /// Requests per second.
    pub rate: f64,
    /// Kernel time of everything in the two pods, µs per request.
    pub kernel_us: f64,
    /// User time, the same.
    pub user_us: f64,
    /// Kernel time of the whole machine, interrupts and kernel threads included, µs per request.
    pub machine_kernel_us: f64,
    /// User time, the same.
    pub machine_user_us: f64,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The kernel's release.
    pub kernel: String,
    /// How many rounds.
    pub rounds: u32,
    /// Seconds of each measurement.
    pub seconds: u64,
    /// What was compared.
    pub settings: Vec<Setting>,
    /// The kinds of traffic.
    pub cases: Vec<Case>,
    #[serde(skip)]
    measured: BTreeMap<(Case, Setting), Vec<Round>>,
    /// What the shortcut's programs counted.
    pub counts: BTreeMap<Setting, BTreeMap<String, u64>>,
}

/// A setting under one kind of traffic, compared with the first setting round by round.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// The traffic.
    pub case: Case,
    /// The setting.
    pub setting: Setting,
    /// Median of requests per second.
    pub rate: f64,
    /// The rounds' ratios.
    pub ratio: Spread,
    /// What the ratio should be at least.
    pub goal: Option<f64>,
    /// Median of the kernel's time in the pods, µs per request.
    pub kernel_us: f64,
    /// Its ratios, round by round.
    pub kernel_ratio: Spread,
    /// Median of the programs' time, µs per request.
    pub user_us: f64,
    /// The kernel's time of the whole machine, and its ratios.
    pub machine_kernel_us: f64,
    /// See there.
    pub machine_kernel_ratio: Spread,
    /// All measurements.
    pub rounds: Vec<Round>,
}

impl Report {
    pub(super) fn new(plan: &Plan, settings: Vec<Setting>) -> Self {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
        Self {
            kernel: release.unwrap_or_default().trim().to_owned(),
            rounds: plan.rounds,
            seconds: plan.duration.as_secs(),
            settings,
            cases: plan.cases.clone(),
            measured: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, setting: Setting, case: Case, round: Round) {
        self.measured
            .entry((case, setting))
            .or_default()
            .push(round);
    }

    /// All comparisons, by traffic.
    pub fn lines(&self) -> Vec<Line> {
        let pairs = self
            .cases
            .iter()
            .flat_map(|case| self.settings.iter().map(|setting| (*case, *setting)));
        pairs
            .filter_map(|(case, setting)| self.line(case, setting))
            .collect()
    }

    fn line(&self, case: Case, setting: Setting) -> Option<Line> {
        let first = self.measured.get(&(case, *self.settings.first()?))?;
        let own = self.measured.get(&(case, setting))?;
        let values = |of: fn(&Round) -> f64| Spread::of(own.iter().map(of)).median;
        let ratios = |of: fn(&Round) -> f64| {
            let pairs = own.iter().zip(first);
            Spread::of(pairs.map(|(own, first)| of(own) / of(first)))
        };
        Some(Line {
            case,
            setting,
            rate: values(|round| round.rate),
            ratio: ratios(|round| round.rate),
            goal: case.goal(setting),
            kernel_us: values(|round| round.kernel_us),
            kernel_ratio: ratios(|round| round.kernel_us),
            user_us: values(|round| round.user_us),
            machine_kernel_us: values(|round| round.machine_kernel_us),
            machine_kernel_ratio: ratios(|round| round.machine_kernel_us),
            rounds: own.clone(),
        })
    }

    /// For programs.
    pub fn json(&self) -> serde_json::Value {
        let mut report = serde_json::to_value(self).expect("plain fields");
        report["lines"] = serde_json::to_value(self.lines()).expect("plain fields");
        report
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Linux {}; medians of {} interleaved rounds of {} s; ratios are to {}, round by round; where the rounds disagree by more than\n\
             their median differs from 1, there is no ratio, only \"noise\"",
            self.kernel,
            self.rounds,
            self.seconds,
            self.settings.first().map_or("", |setting| setting.name())
        )?;
        writeln!(
            f,
            "\"pod\" and \"node\" are what pods get that do not ask for more. Where `sidestep status` says that applications keep to TCP, \"pod\" \
             does nothing.\nOn a cluster those of \"node, apps ask\" have shortcut-into: application, and get what the kernel lets them; in \
             network namespaces they\nget all of it, without the agent's doubts: those readers are known.\n"
        )?;
        writeln!(
            f,
            "{:50}{:>10}  {:>6} {:>14} {:>6}   {:>14} {:>6} {:>9}",
            "",
            "requests/s",
            "ratio",
            "(low, high)",
            "goal",
            "kernel, µs each",
            "ratio",
            "user, µs"
        )?;
        let mut last = None;
        for line in self.lines() {
            let name = if last.replace(line.case) == Some(line.case) {
                ""
            } else {
                line.case.name()
            };
            let goal = line.goal.map_or(String::new(), |goal| format!("{goal:.2}"));
            let range = format!("({:.2}, {:.2})", line.ratio.lowest, line.ratio.highest);
            writeln!(
                f,
                "{name:<26}{:<24}{:>10.0}  {:>6} {range:>14} {goal:>6}   {:>14.1} {:>7} {:>9.1}",
                line.setting.name(),
                line.rate,
                told(line.ratio),
                line.kernel_us,
                told(line.kernel_ratio),
                line.user_us
            )?;
        }
        self.kernel_goals(f)
    }
}

/// A ratio that the rounds agree about.
fn told(ratio: Spread) -> String {
    if ratio.is_noise() {
        "noise".to_owned()
    } else {
        format!("{:.2}", ratio.median)
    }
}

impl Report {
    /// The best setting's kernel time beside what it should be.
    fn kernel_goals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\nkernel time per request at the best setting, as a part of iptables'"
        )?;
        let lines = self.lines();
        for case in &self.cases {
            let of_case = lines.iter().filter(|line| line.case == *case);
            let best =
                of_case.min_by(|a, b| a.kernel_ratio.median.total_cmp(&b.kernel_ratio.median));
            if let (Some(best), Some(goal)) = (best, case.kernel_goal()) {
                writeln!(
                    f,
                    "  {:<24}{} (goal {goal:.2}), {}",
                    case.name(),
                    told(best.kernel_ratio),
                    best.setting.name()
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(rate: f64) -> Round {
        Round {
            rate,
            kernel_us: 1e4 / rate,
            user_us: 1.0,
            machine_kernel_us: 1.0,
            machine_user_us: 1.0,
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let plan = Plan {
            rounds: 3,
            duration: std::time::Duration::from_secs(1),
            cases: vec![Case::One],
        };
        let mut report = Report::new(&plan, vec![Setting::Iptables, Setting::Node]);
        for (first, second) in [(100.0, 110.0), (200.0, 260.0), (400.0, 480.0)] {
            report.add(Setting::Iptables, Case::One, round(first));
            report.add(Setting::Node, Case::One, round(second));
        }
        let lines = report.lines();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(lines[0].ratio.median, 1.0));
        assert!(close(lines[1].ratio.median, 1.2) && close(lines[1].ratio.lowest, 1.1));
        assert!(close(lines[1].rate, 260.0));
        assert!(close(lines[1].kernel_ratio.median, 1.0 / 1.2));
    }
}
