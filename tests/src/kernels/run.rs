//! Runs the same script on each kernel, in a virtual machine or right here, and reads what it prints.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, ensure};

use super::{
    report::{Kernel, RUNNING, Suite},
    survey::On,
};

/// Before what the survey found.
pub const SURVEY: &str = "survey: ";
/// Before the name of a test binary that is run next.
const SUITE: &str = "suite: ";
/// What the machine's first process prints as soon as it runs.
const BOOTED: &str = "qemu: Linux ";

/// Where to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// On the running kernel.
    Here,
    /// In a virtual machine with this kernel of `.parts/kernels`, on which so much is expected to be on.
    Machine(String, On),
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The project's folder `tests`.
    pub tests: PathBuf,
    /// This program, and those beside it that it needs.
    pub programs: Vec<PathBuf>,
    /// Test binaries by name, and what to run of them.
    pub suites: BTreeMap<String, (PathBuf, Vec<String>)>,
    /// Whether a machine has the real programs that tests start.
    pub real_programs: bool,
    /// Connections of torture in a machine, and here.
    pub connections: (u64, u64),
    /// When a machine is ended, in seconds.
    pub seconds: u64,
}

/// Runs it; `tell` hears each line that is of interest while it runs.
pub fn run(plan: &Plan, place: &Where, tell: impl Fn(&str)) -> anyhow::Result<Kernel> {
    let start = Instant::now();
    let mut command = plan.command(place)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    let output = child.stdout.take().context("a pipe was asked for")?;
    let mut heard = Heard::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        if heard.line(&line) {
            tell(&line);
        }
    }
    let status = child.wait()?;
    let mut kernel = heard.kernel;
    (kernel.place, kernel.expected) = match place {
        Where::Here => (RUNNING.to_owned(), None),
        Where::Machine(name, expected) => (name.clone(), Some(*expected)),
    };
    kernel.seconds = start.elapsed().as_secs_f64();
    if kernel.survey.is_none() && kernel.failure.is_none() {
        kernel.failure = Some(format!("the survey did not end ({status})"));
    }
    Ok(kernel)
}

impl Plan {
    fn command(&self, place: &Where) -> anyhow::Result<Command> {
        let script = self.tests.join("qemu/suite.sh");
        // A kernel with a fault is there to show that it is found. Where nothing is on, tests might crash it.
        let suites = match place {
            Where::Machine(_, On::Nothing | On::Sidecars) => &BTreeMap::new(),
            Where::Machine(_, On::Applications) | Where::Here => &self.suites,
        };
        let (mut command, connections) = match place {
            Where::Here => {
                let mut command = Command::new("sh");
                command.arg(script);
                (command, self.connections.1)
            }
            Where::Machine(kernel, _) => {
                let mut command = Command::new(self.tests.join("qemu/run.sh"));
                command.arg(kernel);
                let tests = [self.tests.join("fixtures"), self.tests.join("Cargo.toml")];
                let binaries = suites.values().map(|(path, _)| path);
                for path in self.programs.iter().chain(binaries).chain(&tests) {
                    command.arg("--with").arg(path);
                }
                command.arg("--seconds").arg(self.seconds.to_string());
                if self.real_programs {
                    command.arg("--programs");
                }
                command.arg(script);
                (command, self.connections.0)
            }
        };
        command.current_dir(&self.tests);
        let program = self.programs.first().context("a program")?;
        command.arg(program).arg(connections.to_string());
        for (name, (path, arguments)) in suites {
            let words = [name.as_str(), text(path)?];
            let words = words
                .into_iter()
                .chain(arguments.iter().map(String::as_str));
            let words: Vec<&str> = words.collect();
            ensure!(
                words.iter().all(|word| !word.contains(' ')),
                "a blank in {words:?}"
            );
            command.arg(words.join(" "));
        }
        Ok(command)
    }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is no text", path.display()))
}

/// What was printed so far.
#[derive(Default)]
struct Heard {
    kernel: Kernel,
    since: Option<Instant>,
}

impl Heard {
    /// Takes a line; tells whether it is worth showing.
    fn line(&mut self, line: &str) -> bool {
        let now = Instant::now();
        if line.starts_with(BOOTED) {
            self.kernel.boot_seconds = uptime(line);
            return true;
        }
        if let Some(found) = line.strip_prefix(SURVEY) {
            match serde_json::from_str(found) {
                Ok(survey) => self.kernel.survey = Some(survey),
                Err(error) => self.kernel.failure = Some(format!("{error}: {found}")),
            }
            return false;
        }
        if let Some(name) = line.strip_prefix(SUITE) {
            self.kernel.suites.push(Suite::new(name));
            self.since = Some(now);
            return true;
        }
        let Some(suite) = self.kernel.suites.last_mut() else {
            return false;
        };
        if let Some((name, end)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.rsplit_once(" ... "))
        {
            suite.count(name, end);
        }
        let ended = line.starts_with("test result: ");
        if ended {
            suite.ended = true;
            let took = self.since.map(|since| now - since);
            suite.seconds = took.unwrap_or_default().as_secs_f64();
        }
        ended || line.contains("FAILED") || line.contains("panicked at")
    }
}

/// `…, up 4.20 s`
fn uptime(line: &str) -> Option<f64> {
    let (_, seconds) = line.strip_suffix(" s")?.rsplit_once(' ')?;
    seconds.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_kernel_prints_is_counted() {
        let mut heard = Heard::default();
        let output = "qemu: Linux 6.1.0-42-cloud-amd64, up 4.20 s\nsuite: conformance\n\
            test outbound::captured::sidestep ... ok\ntest dns::asked::sidestep ... FAILED\n\
            test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 51 filtered out; finished in 61.16s\n";
        for line in output.lines() {
            heard.line(line);
        }
        let suite = &heard.kernel.suites[0];
        assert_eq!((suite.name.as_str(), suite.passed), ("conformance", 1));
        assert_eq!(suite.failed, ["dns::asked::sidestep"]);
        assert!(suite.ended);
        assert_eq!(heard.kernel.boot_seconds, Some(4.2));
    }

    #[test]
    fn a_kernel_on_which_other_than_expected_is_on_is_not_good() {
        let survey = |not_from_applications: &str| {
            let hooks = [""; 11].join(r#"",""#);
            let selftest = format!(
                r#""checks":[],"off":null,"not_from_applications":{not_from_applications},"not_into_applications":null,"milliseconds":1"#
            );
            format!(
                r#"survey: {{"release":"","version":"","interception":{{"hooks":["{hooks}"],"failure":null,"milliseconds":1}},"selftest":{{{selftest}}},"torture":null}}"#
            )
        };
        for (found, expected, good) in [
            ("null", On::Applications, true),
            (r#""FIONREAD""#, On::Applications, false),
            (r#""FIONREAD""#, On::Sidecars, true),
            ("null", On::Nothing, false),
        ] {
            let mut heard = Heard::default();
            heard.line(&survey(found));
            heard.kernel.expected = Some(expected);
            assert_eq!(heard.kernel.is_good(), good, "{found} {expected:?}");
        }
    }

    #[test]
    fn a_suite_that_did_not_end_did_not_pass() {
        let mut heard = Heard::default();
        for line in ["suite: conformance", "test a ... ok"] {
            heard.line(line);
        }
        assert!(!heard.kernel.suites[0].is_good());
    }
}
