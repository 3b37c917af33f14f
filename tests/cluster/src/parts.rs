//! The programs of the node: started in order, watched while the others wait for them.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use super::{host::Host, place::Place};

/// How much of a log a failure shows.
const TAIL: usize = 12;

/// The running programs. They are not killed when this is dropped: the cluster's cgroup is.
#[derive(Debug)]
pub struct Parts<'a> {
    place: &'a Place,
    host: &'a Host,
    running: Vec<(String, Child)>,
}

impl<'a> Parts<'a> {
    /// None yet.
    pub fn new(place: &'a Place, host: &'a Host) -> Self {
        Self {
            place,
            host,
            running: Vec::new(),
        }
    }

    /// Starts a program that set-up built; its output goes to its log.
    pub fn start<S: AsRef<str>>(&mut self, name: &str, arguments: &[S]) -> anyhow::Result<()> {
        self.start_as(name, &self.place.program(name)?, arguments)
    }

    /// Starts a program under this name.
    pub fn start_as<S: AsRef<str>>(
        &mut self,
        name: &str,
        program: &Path,
        arguments: &[S],
    ) -> anyhow::Result<()> {
        let log = File::create(self.place.log(name))?;
        let mut command = self.host.command(program)?;
        command.args(arguments.iter().map(AsRef::as_ref));
        command.stdout(log.try_clone()?).stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        self.running.push((name.to_owned(), child));
        Ok(())
    }

    /// Waits until a condition holds. Fails, with the end of the log of the part that is to blame, when a part ended or `patience` is over.
    pub fn wait(
        &mut self,
        part: &str,
        what: &str,
        patience: Duration,
        mut condition: impl FnMut() -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + patience;
        while !condition() {
            for (name, child) in &mut self.running {
                if let Some(status) = child.try_wait()? {
                    bail!("{name} ended ({status}).\n{}", tail(&self.place.log(name)));
                }
            }
            if Instant::now() > deadline {
                bail!(
                    "{what}: not within {} s.\n{}",
                    patience.as_secs(),
                    tail(&self.place.log(part))
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Their names and process ids.
    pub fn list(&self) -> Vec<(&str, u32)> {
        let running = self.running.iter();
        running
            .map(|(name, child)| (name.as_str(), child.id()))
            .collect()
    }

    /// The processes, for the one who will wait for their end.
    pub fn into_children(self) -> Vec<Child> {
        self.running.into_iter().map(|(_, child)| child).collect()
    }
}

/// The end of a log, with its name.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL)..];
    format!(
        "The end of {}:\n{}",
        PathBuf::from(log).display(),
        last.join("\n")
    )
}
