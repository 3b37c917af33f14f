//! Outside of the machine: starts it, and reads what it prints.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use sidestep_kit::{binary, envoy, load, parts};

use super::{
    Case, Instructions, Measured, Profiles, Sample, Setting, inside, mark, profile::Symbols,
};

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Folders of `.parts/kernels`.
    pub kernels: Vec<String>,
    /// Ways to redirect.
    pub settings: Vec<Setting>,
    /// Kinds of traffic.
    pub cases: Vec<Case>,
    /// How long each is measured, in whole seconds of the machine's clock: each is a thousand million instructions.
    pub duration: Duration,
    /// Whether to keep where the kernel's instructions were.
    pub profile: bool,
}

/// Memory of the machine, in MiB: it has no disk, and Envoy is large.
const MEMORY: u32 = 4000;
/// When a machine that says nothing more is given up.
const PATIENCE: Duration = Duration::from_hours(1);

impl Plan {
    /// Measures on one kernel; `tell` hears what the machine says.
    pub fn measure(
        &self,
        kernel: &str,
        tell: impl Fn(&str),
    ) -> anyhow::Result<(Vec<Measured>, Profiles)> {
        let folder = tempfile::tempdir()?;
        let marks = folder.path().join("marks");
        fs::write(&marks, "")?;
        let mut machine = self.command(kernel, folder.path())?;
        let mut machine = machine.stdout(Stdio::piped()).spawn()?;
        let output = machine.stdout.take().context("its output")?;
        let (mut samples, mut profiles, mut read_so_far) = (Vec::new(), Profiles::default(), 0);
        for line in BufReader::new(output).lines() {
            let line = line?;
            if let Some(sample) = line.strip_prefix(inside::SAMPLE) {
                let sample: Sample = serde_json::from_str(sample).context("a sample")?;
                tell(&format!("{kernel}: {}, {}", sample.setting, sample.case));
                samples.push(sample);
            } else if let Some(packed) = line.strip_prefix(inside::SYMBOLS) {
                let symbols = Symbols::unpack(packed)?;
                for numbered in samples.iter().enumerate().skip(read_so_far) {
                    profiles.read(&symbols, folder.path(), numbered)?;
                }
                read_so_far = samples.len();
            } else {
                tell(&format!("{kernel}: {line}"));
            }
        }
        let status = machine.wait()?;
        ensure!(status.success(), "the machine with {kernel}: {status}");
        let marks = read_marks(&marks)?;
        if marks.len() != 2 * samples.len() {
            bail!("{} marks for {} samples", marks.len(), samples.len());
        }
        let measured = samples.into_iter().zip(marks.chunks(2));
        let measured = measured.map(|(sample, marks)| Measured {
            sample,
            instructions: marks[1] - marks[0],
        });
        Ok((measured.collect(), profiles))
    }

    fn command(&self, kernel: &str, folder: &Path) -> anyhow::Result<Command> {
        let workspace = parts::workspace();
        let own = std::env::current_exe()?;
        let plugin = own.with_file_name("libsidestep_instructions.so");
        ensure!(
            plugin.exists(),
            "{} is missing: build sidestep-instructions",
            plugin.display()
        );
        let mut counter = format!("{},mark={}", plugin.display(), mark::BYTES);
        if self.profile {
            let _ = write!(counter, ",profile={}", folder.display());
        }
        let names = |values: Vec<String>| values.join(",");
        let mut command = Command::new(workspace.join("tests/qemu/run.sh"));
        command
            .arg(kernel)
            .arg("--count")
            .arg(folder.join("marks"))
            .args(["--memory", &MEMORY.to_string()])
            .args(["--seconds", &PATIENCE.as_secs().to_string()])
            .arg("--with")
            .arg(envoy::program()?)
            .arg("--with")
            .arg(load::tool("wrk")?)
            .arg("--with")
            .arg(load::tool("h2load")?)
            .arg("--with")
            .arg(workspace.join("tests/fixtures"));
        for program in ["sidestep-agent", "sidestep-app"] {
            command.arg("--with").arg(binary(program));
        }
        command
            .arg(own)
            .arg("inside")
            .args(["--seconds", &self.duration.as_secs().to_string()])
            .args([
                "--setting",
                &names(self.settings.iter().map(name).collect()),
            ])
            .args(["--case", &names(self.cases.iter().map(name).collect())])
            .current_dir(workspace)
            .env("SIDESTEP_QEMU_PLUGIN", counter);
        if self.profile {
            command.arg("--symbols");
        }
        Ok(command)
    }
}

/// As the command line says it.
fn name(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value().expect("none is skipped");
    value.get_name().to_owned()
}

fn read_marks(marks: &Path) -> anyhow::Result<Vec<Instructions>> {
    let text = fs::read_to_string(marks)?;
    let lines = text.lines().map(|line| {
        let (programs, kernel) = line.split_once(' ').context("two numbers")?;
        Ok(Instructions {
            programs: programs.parse()?,
            kernel: kernel.parse()?,
        })
    });
    lines.collect()
}
