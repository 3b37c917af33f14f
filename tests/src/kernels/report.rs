//! The table of kernels.

use std::fmt;

use serde::Serialize;

use super::survey::{On, Survey};

/// All kernels that were tried.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Each.
    pub kernels: Vec<Kernel>,
}

/// One kernel.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Kernel {
    /// `running`, or the folder it was taken from.
    pub place: String,
    /// What is to be on there; nothing is expected of the running one.
    pub expected: Option<On>,
    /// From the kernel's start to the first process of a virtual machine.
    pub boot_seconds: Option<f64>,
    /// All of it.
    pub seconds: f64,
    /// What was found.
    pub survey: Option<Survey>,
    /// Tests.
    pub suites: Vec<Suite>,
    /// Why there is no survey.
    pub failure: Option<String>,
}

/// The tests of one binary.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// How many passed.
    pub passed: u64,
    /// Those that failed.
    pub failed: Vec<String>,
    /// How long it took.
    pub seconds: f64,
    /// Whether it came to its end.
    pub ended: bool,
}

impl Suite {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn count(&mut self, test: &str, end: &str) {
        match end {
            "ok" => self.passed += 1,
            "FAILED" => self.failed.push(test.to_owned()),
            _ => {}
        }
    }

    /// Whether all of it passed.
    pub fn is_good(&self) -> bool {
        self.ended && self.failed.is_empty() && self.passed > 0
    }
}

/// [`Kernel::place`] of the running one.
pub(super) const RUNNING: &str = "running";
/// Hooks on the pods' cgroup.
const HOOKS: usize = 11;

impl Kernel {
    /// Whether everything works that has to: interception, the tests, as much of the shortcut as is expected, and nothing
    /// broken by it.
    pub fn is_good(&self) -> bool {
        let survey = self.survey.as_ref().is_some_and(|survey| {
            let clean = |torture: &super::Torture| {
                torture.corrupted + torture.lost + torture.stuck == 0 && torture.redirected > 0
            };
            survey.interception.failure.is_none()
                && self
                    .expected
                    .is_none_or(|expected| expected == survey.selftest.on())
                && survey.interception.hooks.len() == HOOKS
                && survey.torture.as_ref().is_none_or(clean)
        });
        survey && self.failure.is_none() && self.suites.iter().all(Suite::is_good)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = [
            ("kernel", 27),
            ("boot", 8),
            ("interception", 20),
            ("self-test", 20),
            ("shortcut", 9),
            ("from apps", 11),
            ("into apps", 11),
            ("torture: corrupted/lost/stuck", 30),
        ];
        for (name, width) in columns {
            write!(f, "{name:<width$}")?;
        }
        writeln!(f, "tests")?;
        for kernel in &self.kernels {
            kernel.row(f)?;
        }
        writeln!(f)?;
        for kernel in &self.kernels {
            kernel.notes(f)?;
        }
        Ok(())
    }
}

impl Kernel {
    fn name(&self) -> &str {
        let release = self.survey.as_ref().map(|survey| survey.release.as_str());
        release.unwrap_or(&self.place)
    }

    fn row(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let boot = self
            .boot_seconds
            .map_or("-".to_owned(), |seconds| format!("{seconds:.1} s"));
        write!(f, "{:<27}{boot:<8}", self.name())?;
        let Some(survey) = &self.survey else {
            return writeln!(f, "{}", self.failure.as_deref().unwrap_or("nothing"));
        };
        let Survey {
            interception,
            selftest,
            torture,
            ..
        } = survey;
        let on = |off: &Option<String>| if off.is_none() { "on" } else { "off" };
        let passed = selftest
            .checks
            .iter()
            .filter(|check| check.failure.is_none());
        let checks = format!(
            "{} of {}, {:.1} s",
            passed.count(),
            selftest.checks.len(),
            seconds(selftest.milliseconds)
        );
        let hooks = format!(
            "{} of {HOOKS}, {:.1} s",
            interception.hooks.len(),
            seconds(interception.milliseconds)
        );
        let torture = torture.as_ref().map_or("-".to_owned(), |torture| {
            format!(
                "{}/{}/{} of {}",
                torture.corrupted, torture.lost, torture.stuck, torture.connections
            )
        });
        write!(
            f,
            "{hooks:<20}{checks:<20}{:<9}{:<11}{:<11}{torture:<30}",
            on(&selftest.off),
            on(&selftest.not_from_applications),
            on(&selftest.not_into_applications)
        )?;
        let tests: Vec<String> = self.suites.iter().map(Suite::to_string).collect();
        writeln!(f, "{}", tests.join(", "))
    }

    /// Whatever is not as it should be, and why.
    fn notes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: took {:.0} s", self.name(), self.seconds)?;
        let mut note = |what: &str, why: &str| writeln!(f, "  {what}: {}", why.trim_end());
        if let Some(why) = &self.failure {
            note("nothing is known", why)?;
        }
        if let Some(survey) = &self.survey {
            if let Some(why) = &survey.interception.failure {
                note("the agent is not ready", why)?;
            }
            if let Some(expected) = self.expected
                && expected != survey.selftest.on()
            {
                let found = format!("{:?}, and not {expected:?}", survey.selftest.on());
                note("the shortcut is on for", &found)?;
            }
            if let Some(why) = &survey.selftest.off {
                note("the shortcut is off", why)?;
            }
            if let Some(why) = &survey.selftest.not_from_applications {
                note(
                    "applications keep to TCP unless they ask for the shortcut",
                    why,
                )?;
            }
            if let Some(why) = &survey.selftest.not_into_applications {
                note("nothing is put into applications", why)?;
            }
            for check in &survey.selftest.checks {
                let verdict = check.failure.as_deref().unwrap_or("ok");
                note(&check.name, verdict)?;
            }
            for fault in survey.torture.iter().flat_map(|torture| &torture.faults) {
                note("torture", fault)?;
            }
        }
        for suite in &self.suites {
            for test in &suite.failed {
                note(&suite.name, &format!("{test} failed"))?;
            }
            if !suite.ended {
                note(&suite.name, "did not come to its end")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.passed + self.failed.len() as u64;
        write!(
            f,
            "{} {}/{all} in {:.0} s",
            self.name, self.passed, self.seconds
        )
    }
}

fn seconds(milliseconds: u64) -> f64 {
    std::time::Duration::from_millis(milliseconds).as_secs_f64()
}
