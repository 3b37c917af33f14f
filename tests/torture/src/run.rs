//! A long run: rounds of connections, each with another flow, family, steering of packets and delivery, and a file from
//! which a run that was ended goes on.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use sidestep_agent::shortcut::{Allowed, Options, Reach};

use super::{Flow, World, worker::Report};

/// Most connections of one round. Short runs have shorter ones, so that they try everything too.
const ROUND: u64 = 500;
/// Rounds after which everything was tried.
const KINDS: u64 = 32;

/// How far a run is: of one build of the programs, on one kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The kernel, and what was built.
    #[serde(default)]
    pub of: String,
    /// Connections made, which is also the number of the next.
    pub connections: u64,
    /// What their ends tell.
    pub report: Report,
    /// What the programs counted, by name.
    pub counts: std::collections::BTreeMap<String, u64>,
}

impl Progress {
    /// At the beginning.
    pub fn new() -> io::Result<Self> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        // The shortcut's programs are in it.
        let mut build = DefaultHasher::new();
        fs::read("/proc/self/exe")?.hash(&mut build);
        Ok(Self {
            of: format!("{} {:016x}", release.trim(), build.finish()),
            ..Self::default()
        })
    }

    /// What an earlier run left in a file, if that was of the same build and kernel, and ended before so many connections.
    pub fn read(file: &Path, connections: u64) -> io::Result<Self> {
        let new = Self::new()?;
        match fs::read(file) {
            Ok(bytes) => {
                let left: Self = serde_json::from_slice(&bytes)?;
                let goes_on = left.of == new.of && left.connections < connections;
                Ok(if goes_on { left } else { new })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(new),
            Err(error) => Err(error),
        }
    }

    fn write(&self, file: &Path) -> io::Result<()> {
        let draft = file.with_extension("draft");
        fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
        fs::rename(draft, file)
    }
}

/// What varies from round to round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Round {
    flow: Flow,
    v6: bool,
    steered: bool,
    into_application: bool,
}

impl Round {
    fn of(number: u64) -> Self {
        let bit = |bit: u64| number >> bit & 1 != 0;
        let flow = usize::try_from(number % 4).expect("one of four");
        Self {
            flow: Flow::ALL[flow],
            v6: bit(2),
            into_application: bit(3),
            // Once on, once off, for many rounds: changing it takes a while.
            steered: !bit(4),
        }
    }
}

/// Plays until `connections` are made, counted from `progress`. Writes the progress to a file, if there is one, and tells
/// it to `tell` after each round.
pub fn run(
    options: Option<Options>,
    connections: u64,
    mut progress: Progress,
    file: Option<&Path>,
    mut tell: impl FnMut(&Progress),
) -> io::Result<Progress> {
    let mut world = World::new(options, Allowed::default());
    let size = (connections / KINDS).clamp(1, ROUND);
    let mut steered = None;
    let before = progress.counts.clone();
    while progress.connections < connections {
        let round = Round::of(progress.connections / size);
        if steered.replace(round.steered) != Some(round.steered) {
            world.steer_packets(round.steered);
        }
        for pod in [0, 1] {
            world.allow(
                pod,
                Allowed {
                    reach: Reach::Node,
                    from_application: true,
                    into_application: round.into_application,
                },
            );
        }
        let count = size.min(connections - progress.connections);
        let report = world.play(round.flow, round.v6, progress.connections, count, 8);
        progress.connections += count;
        progress.report.add(&report);
        progress.counts.clone_from(&before);
        for (count, value) in world.tally() {
            *progress.counts.entry(count.name().to_owned()).or_default() += value;
        }
        if let Some(file) = file {
            progress.write(file)?;
        }
        tell(&progress);
    }
    Ok(progress)
}

/// A line of progress, at most one a second.
#[derive(Debug)]
pub struct Teller {
    start: Instant,
    from: u64,
    last: Option<Instant>,
}

impl Teller {
    /// Begins at this connection.
    pub fn new(from: u64) -> Self {
        Self {
            start: Instant::now(),
            from,
            last: None,
        }
    }

    /// Prints, if it is time.
    pub fn tell(&mut self, progress: &Progress, of: u64) {
        let due = self
            .last
            .is_none_or(|last| last.elapsed() > Duration::from_secs(1));
        if !due && progress.connections < of {
            return;
        }
        self.last = Some(Instant::now());
        let made = progress.connections - self.from;
        let rate = made * 1000
            / u64::try_from(self.start.elapsed().as_millis().max(1)).unwrap_or(u64::MAX);
        let report = &progress.report;
        println!(
            "{:>9} of {of} connections, {rate}/s; corrupted {}, lost {}, stuck {}; redirected {} messages, {} by TCP for order, {} for memory",
            progress.connections,
            report.corrupted,
            report.lost,
            report.stuck,
            progress.counts.get("redirected").unwrap_or(&0),
            progress.counts.get("unread").unwrap_or(&0) + progress.counts.get("busy").unwrap_or(&0),
            progress.counts.get("full").unwrap_or(&0),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_where_one_of_the_same_build_was_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("state.json");
        let read = || Progress::read(&file, 1000).expect("a file that can be read");
        let new = read();
        assert_eq!(new, Progress::new().expect("a kernel"));
        for (of, connections, goes_on) in [
            (new.of.as_str(), 999, true),
            (new.of.as_str(), 1000, false),
            ("of another", 999, false),
        ] {
            let left = Progress {
                of: of.to_owned(),
                connections,
                ..Progress::default()
            };
            left.write(&file).expect("a folder of ours");
            assert_eq!(read(), if goes_on { left } else { new.clone() });
        }
    }

    #[test]
    fn thirty_two_rounds_try_every_combination() {
        let rounds: Vec<Round> = (0..32).map(Round::of).collect();
        for flow in Flow::ALL {
            for bits in 0..8 {
                let wanted = Round {
                    flow,
                    v6: bits & 1 != 0,
                    into_application: bits & 2 != 0,
                    steered: bits & 4 != 0,
                };
                assert!(rounds.contains(&wanted), "{wanted:?}");
            }
        }
    }
}
