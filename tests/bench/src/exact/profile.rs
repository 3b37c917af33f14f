//! Where the kernel's instructions were: the blocks of a profile, by the kernel's functions.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

use super::{Case, Sample, Setting, each};

/// The kernel's functions, those of its modules and BPF programs among them, by address.
#[derive(Debug)]
pub struct Symbols(BTreeMap<u64, String>);

impl Symbols {
    /// What a shell packs the functions of `/proc/kallsyms` with.
    pub const PACK: &str = "grep -i ' [tw] ' /proc/kallsyms | gzip | base64 -w 0";

    /// Unpacks them.
    pub fn unpack(packed: &str) -> anyhow::Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", "base64 -d | gunzip"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut input = shell.stdin.take().context("its input")?;
        let packed = packed.to_owned();
        let writer = std::thread::spawn(move || input.write_all(packed.as_bytes()));
        let output = shell.wait_with_output()?;
        writer.join().expect("no panic")?;
        ensure!(
            output.status.success(),
            "the kernel's symbols: {}",
            output.status
        );
        let text = String::from_utf8(output.stdout)?;
        let by_address = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            Some((address, words.nth(1)?.to_owned()))
        });
        Ok(Self(by_address.collect()))
    }

    fn function(&self, address: u64) -> String {
        let found = self.0.range(..=address).next_back();
        found.map_or("?".to_owned(), |(_, name)| name.clone())
    }
}

/// How many instructions of a request ran in each of the kernel's functions.
#[derive(Debug, Default)]
pub struct Profiles(BTreeMap<(Setting, Case), BTreeMap<String, f64>>);

impl Profiles {
    /// Reads what the plugin left for a sample, the n-th of its machine: at every second mark the blocks since the one before.
    pub fn read(
        &mut self,
        symbols: &Symbols,
        folder: &Path,
        (n, sample): (usize, &Sample),
    ) -> anyhow::Result<()> {
        let text = fs::read_to_string(folder.join((2 * n + 1).to_string()))?;
        let mut functions = BTreeMap::new();
        for line in text.lines() {
            let (address, count) = line.split_once(' ').context("two numbers")?;
            let function = symbols.function(u64::from_str_radix(address, 16)?);
            *functions.entry(function).or_default() += each(count.parse()?, sample.requests);
        }
        self.0.insert((sample.setting, sample.case), functions);
        Ok(())
    }

    /// So many of the dearest functions of all samples, side by side.
    pub const fn dearest(&self, count: usize) -> Dearest<'_> {
        Dearest {
            profiles: &self.0,
            count,
        }
    }
}

/// A table: instructions per request of each function.
pub struct Dearest<'a> {
    profiles: &'a BTreeMap<(Setting, Case), BTreeMap<String, f64>>,
    count: usize,
}

impl fmt::Display for Dearest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut total = BTreeMap::<&String, f64>::new();
        for (function, instructions) in self.profiles.values().flatten() {
            *total.entry(function).or_default() += instructions;
        }
        let mut functions: Vec<_> = total.into_iter().collect();
        functions.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        write!(f, "{:44}", "instructions a request")?;
        for (setting, case) in self.profiles.keys() {
            write!(f, " {:>40}", format!("{setting}, {case}"))?;
        }
        for (function, _) in functions.into_iter().take(self.count) {
            write!(f, "\n{function:44}")?;
            for functions in self.profiles.values() {
                let instructions = functions.get(function).copied().unwrap_or_default();
                write!(f, " {instructions:>40.0}")?;
            }
        }
        writeln!(f)
    }
}
